"""All that is changed in a trainer before it fits."""

from pytorch_lightning import Trainer

from mlscale.train.checkpoint.failed_saves import guard_checkpoint_callbacks
from mlscale.train.checkpoint.step_boundary import install_boundaries
from mlscale.train.lightning.patches import ShortSteps, disable_signal_handling, skip_profiler
from mlscale.train.lightning.profiler_report import keep_profiler_report
from mlscale.train.lightning.trainer_parts import get_callbacks


def apply_trainer_patches(trainer: Trainer) -> None:
    """Prepare a trainer; call before fit."""
    disable_signal_handling(trainer)
    skip_profiler(trainer)
    keep_profiler_report(trainer)
    guard_checkpoint_callbacks(trainer)
    install_boundaries(trainer)
    get_callbacks(trainer).insert(0, ShortSteps())
