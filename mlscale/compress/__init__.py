"""Compress models to int8, kept only if measured to be faster and accurate enough.

Public names are imported on use, so that `import mlscale.compress` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlscale.compress.int8 import Int8

__all__ = ["Int8"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlscale.compress.int8 import Int8

    return Int8
