"""mlscale: one YAML recipe, from proof of concept to production.

    cfg = mlscale.compose(["+recipe=resnet", "trainer.max_epochs=1"])
    result = mlscale.run("train", cfg)
    mlscale.run("evaluate", ["last"])
    mlscale.load("last").predict(images)

Importing it imports nothing heavy: each name is looked up when it is used.
"""

import os
from typing import TYPE_CHECKING, Any

from mlscale import lightning_names

if TYPE_CHECKING:
    from mlscale.api import compose, run
    from mlscale.errors import MLScaleError
    from mlscale.model_loading import load
    from mlscale.report import Result

__version__ = "0.2.0"
__all__ = ["MLScaleError", "Result", "compose", "load", "run"]

# Name to module, for `__getattr__`: each is imported when it is first used (PEP 562).
_MODULES = {
    "MLScaleError": "mlscale.errors",
    "Result": "mlscale.report",
    "compose": "mlscale.api",
    "load": "mlscale.model_loading",
    "run": "mlscale.api",
}

if os.environ.get("MLSCALE_LOG_FORMAT") == "json":  # also in processes that mlscale starts
    from mlscale import log_lines

    log_lines.apply_variable()
lightning_names.install_finder()  # before any code of the user's imports `lightning`


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'mlscale' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
