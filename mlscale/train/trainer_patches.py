"""All that is changed in a trainer before it fits."""

import sys
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from mlscale.train.checkpoint.failed_saves import guard_checkpoint_callbacks
from mlscale.train.checkpoint.step_boundary import install_boundaries
from mlscale.train.lightning.patches import ShortSteps, disable_signal_handling, skip_profiler
from mlscale.train.lightning.trainer_parts import get_callbacks


def apply_trainer_patches(trainer: Trainer) -> None:
    """Prepare a trainer; call before fit."""
    disable_signal_handling(trainer)
    skip_profiler(trainer)
    keep_profiler_report(trainer)
    guard_checkpoint_callbacks(trainer)
    install_boundaries(trainer)
    get_callbacks(trainer).insert(0, ShortSteps())


_FOLDER = "logs/profiler"
_NAMES: tuple[tuple[type[Profiler], str], ...] = (
    (SimpleProfiler, "simple"),
    (AdvancedProfiler, "advanced"),
    (PyTorchProfiler, "pytorch"),
)
_PRINTED_LINES = 60  # the advanced profiler's report has thousands


def keep_profiler_report(trainer: Trainer) -> None:
    """Let a profiler of Lightning's write its report to `logs/profiler` of the run folder, and print it after the fit.

    By itself it logs the report as information of Lightning's, which is silenced (`quiet.py`), and nothing is left.
    """
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]  # set by a connector
    name = next((name for kind, name in _NAMES if isinstance(profiler, kind)), None)
    if name is None:
        return
    # A folder or name that the user has given stays.
    profiler.dirpath = profiler.dirpath or Path(trainer.default_root_dir) / _FOLDER
    profiler.filename = profiler.filename or name
    summarize = profiler.summary

    def summarize_and_print() -> str:
        report = summarize()
        if report and trainer.is_global_zero:
            print(_shorten_report(report, str(profiler.dirpath)), file=sys.stderr, flush=True)
        return report

    profiler.summary = summarize_and_print  # type: ignore[method-assign]  # for this trainer alone


def _shorten_report(report: str, folder: str) -> str:
    """Return the first lines of a report, and where the whole of it is."""
    lines = report.strip().splitlines()
    shown = lines[:_PRINTED_LINES]
    more = f"{len(lines) - len(shown)} more lines, and the whole report: " if len(lines) > len(shown) else "report: "
    return "\n".join([*shown, f"{more}{folder}"])
