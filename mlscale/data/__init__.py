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
    from mlscale.data.language import TextFiles
    from mlscale.data.python_docs import PythonDocs
    from mlscale.data.python_source import PythonSource
    from mlscale.data.scenes import DigitsScenes
    from mlscale.data.shards import WebDataset
    from mlscale.data.tables import BreastCancer, Diabetes, TableFiles
    from mlscale.data.text_table import Fortunes, TextTable

__all__ = [
    "Augment",
    "BreastCancer",
    "DataFacts",
    "DatasetData",
    "Diabetes",
    "Digits",
    "DigitsScenes",
    "FashionMNIST",
    "Fortunes",
    "ImageFolder",
    "Promises",
    "PythonDocs",
    "PythonSource",
    "RandomCrop",
    "TableFiles",
    "TextFiles",
    "TextTable",
    "WebDataset",
]

_HOME = {
    "Augment": "augment",
    "BreastCancer": "tables",
    "DataFacts": "facts",
    "DatasetData": "dataset",
    "Diabetes": "tables",
    "Digits": "bundled",
    "DigitsScenes": "scenes",
    "FashionMNIST": "bundled",
    "Fortunes": "text_table",
    "ImageFolder": "folder",
    "Promises": "facts",
    "PythonDocs": "python_docs",
    "PythonSource": "python_source",
    "RandomCrop": "crop",
    "TableFiles": "tables",
    "TextFiles": "language",
    "TextTable": "text_table",
    "WebDataset": "shards",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
