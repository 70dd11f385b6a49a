"""The callbacks that a configuration may name, one file each."""

from mlscale.train.checkpoints import Checkpoints as Checkpoints
from mlscale.train.freeze import Freeze as Freeze
from mlscale.train.nonfinite import NonFinite as NonFinite
from mlscale.train.progress import Progress as Progress
from mlscale.train.step_seed import StepSeed as StepSeed
from mlscale.train.trace import Trace as Trace
from mlscale.train.train_metrics import TrainMetrics as TrainMetrics

__all__ = ["Checkpoints", "Freeze", "NonFinite", "Progress", "StepSeed", "Trace", "TrainMetrics"]
