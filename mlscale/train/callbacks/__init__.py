"""The callbacks that a configuration may name, one file each."""

from mlscale.train.callbacks.checkpoints import Checkpoints as Checkpoints
from mlscale.train.callbacks.device_stats import DeviceStats as DeviceStats
from mlscale.train.callbacks.ema import EMA as EMA
from mlscale.train.callbacks.freeze import Freeze as Freeze
from mlscale.train.callbacks.grad_norm import GradNorm as GradNorm
from mlscale.train.callbacks.loss_spike import LossSpike as LossSpike
from mlscale.train.callbacks.lr_monitor import LRMonitor as LRMonitor
from mlscale.train.callbacks.nonfinite import NonFinite as NonFinite
from mlscale.train.callbacks.notify import Notify as Notify
from mlscale.train.callbacks.progress import Progress as Progress
from mlscale.train.callbacks.samples import Samples as Samples
from mlscale.train.callbacks.stall import Stall as Stall
from mlscale.train.callbacks.step_seed import StepSeed as StepSeed
from mlscale.train.callbacks.train_metrics import TrainMetrics as TrainMetrics
from mlscale.verify_resume.trace import Trace as Trace

__all__ = [
    "EMA", "Checkpoints", "DeviceStats", "Freeze", "GradNorm", "LRMonitor", "LossSpike", "NonFinite", "Notify",
    "Progress", "Samples", "Stall", "StepSeed", "Trace", "TrainMetrics",
]  # fmt: skip
