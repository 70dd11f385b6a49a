"""The callbacks that a configuration may name, one file each. Public names are imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# For type checkers alone: importing a callback imports Lightning and torch.
if TYPE_CHECKING:
    from mlscale.train.callbacks.checkpoints import Checkpoints
    from mlscale.train.callbacks.ema import EMA
    from mlscale.train.callbacks.former import DeviceStats, LossSpike
    from mlscale.train.callbacks.freeze import Freeze
    from mlscale.train.callbacks.grad_norm import GradNorm
    from mlscale.train.callbacks.lr_monitor import LRMonitor
    from mlscale.train.callbacks.nonfinite import NonFinite
    from mlscale.train.callbacks.notify import Notify
    from mlscale.train.callbacks.progress import Progress
    from mlscale.train.callbacks.samples import Samples
    from mlscale.train.callbacks.stall import Stall
    from mlscale.train.callbacks.step_seed import StepSeed
    from mlscale.train.callbacks.train_metrics import TrainMetrics

__all__ = [
    "EMA",
    "Checkpoints",
    "DeviceStats",
    "Freeze",
    "GradNorm",
    "LRMonitor",
    "LossSpike",
    "NonFinite",
    "Notify",
    "Progress",
    "Samples",
    "Stall",
    "StepSeed",
    "TrainMetrics",
]

_HOME = {
    "Checkpoints": "checkpoints",
    "DeviceStats": "former",
    "EMA": "ema",
    "Freeze": "freeze",
    "GradNorm": "grad_norm",
    "LossSpike": "former",
    "LRMonitor": "lr_monitor",
    "NonFinite": "nonfinite",
    "Notify": "notify",
    "Progress": "progress",
    "Samples": "samples",
    "Stall": "stall",
    "StepSeed": "step_seed",
    "TrainMetrics": "train_metrics",
}


# PEP 562: Python calls this only for names that the module does not hold.
def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
