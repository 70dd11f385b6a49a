"""Data: shards and folders in, ordered batches out, the same on any number of ranks.

Public names are imported on use, so that `import mlscale.data` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlscale.data.augment import Augment
    from mlscale.data.bundled import Digits, FashionMNIST
    from mlscale.data.crop import RandomCrop
    from mlscale.data.dataset import DatasetData
    from mlscale.data.facts import DataFacts, Promises
    from mlscale.data.folder import ImageFolder
    from mlscale.data.scenes import DigitsScenes
    from mlscale.data.shards import WebDataset

__all__ = [
    "Augment",
    "DataFacts",
    "DatasetData",
    "Digits",
    "DigitsScenes",
    "FashionMNIST",
    "ImageFolder",
    "Promises",
    "RandomCrop",
    "WebDataset",
]

_HOME = {
    "Augment": "augment",
    "DataFacts": "facts",
    "DatasetData": "dataset",
    "Digits": "bundled",
    "DigitsScenes": "scenes",
    "FashionMNIST": "bundled",
    "ImageFolder": "folder",
    "Promises": "facts",
    "RandomCrop": "crop",
    "WebDataset": "shards",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
