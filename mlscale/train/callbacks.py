"""The callbacks that a configuration may name, one file each."""

from mlscale.train.checkpoints import Checkpoints as Checkpoints
from mlscale.train.device_stats import DeviceStats as DeviceStats
from mlscale.train.ema import EMA as EMA
from mlscale.train.freeze import Freeze as Freeze
from mlscale.train.grad_norm import GradNorm as GradNorm
from mlscale.train.loss_spike import LossSpike as LossSpike
from mlscale.train.lr_monitor import LRMonitor as LRMonitor
from mlscale.train.nonfinite import NonFinite as NonFinite
from mlscale.train.notify import Notify as Notify
from mlscale.train.progress import Progress as Progress
from mlscale.train.samples import Samples as Samples
from mlscale.train.stall import Stall as Stall
from mlscale.train.step_seed import StepSeed as StepSeed
from mlscale.train.train_metrics import TrainMetrics as TrainMetrics
from mlscale.verify_resume.trace import Trace as Trace

__all__ = [
    "EMA", "Checkpoints", "DeviceStats", "Freeze", "GradNorm", "LRMonitor", "LossSpike", "NonFinite", "Notify",
    "Progress", "Samples", "Stall", "StepSeed", "Trace", "TrainMetrics",
]  # fmt: skip
