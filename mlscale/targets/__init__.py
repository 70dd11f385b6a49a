"""Export targets: what a servable is made into for a server or a runtime, proven against the trained model.

Public names are imported on use, so that `import mlscale.targets` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlscale.targets.onnx_target import OnnxTarget
    from mlscale.targets.target import Target, TargetServer
    from mlscale.targets.tfserving.tfserving_target import TFServingTarget
    from mlscale.targets.triton.triton_target import TritonTarget

_MODULES = {
    "OnnxTarget": "onnx_target",
    "TFServingTarget": "tfserving.tfserving_target",
    "Target": "target",
    "TargetServer": "target",
    "TritonTarget": "triton.triton_target",
}

__all__ = ["OnnxTarget", "TFServingTarget", "Target", "TargetServer", "TritonTarget"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mlscale.targets.{_MODULES[name]}"), name)
