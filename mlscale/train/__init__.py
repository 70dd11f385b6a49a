"""Training, and `mlscale.train(cfg)`: the package has the name of the verb, so it can be called as the verb is."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Train(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # By name: libraries import no door, and this is the door of whoever asks.
        return import_module("mlscale.api").train(*args, **kwargs)


sys.modules[__name__].__class__ = _Train
