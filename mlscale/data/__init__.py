"""Data: shards and folders in, ordered batches out, the same on any number of ranks.

Public names are imported on use, so that `import mlscale.data` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# For type checkers only: at run time `__getattr__` imports a name when it is used.
if TYPE_CHECKING:
    from mlscale.data.augmentations.augmentation import Augment
    from mlscale.data.augmentations.random_crop import RandomCrop
    from mlscale.data.backend import Backend
    from mlscale.data.builtin.digit_scenes import DigitsScenes
    from mlscale.data.builtin.image_sets import Digits, FashionMNIST
    from mlscale.data.builtin.python_docs import PythonDocs
    from mlscale.data.builtin.python_source import PythonSource
    from mlscale.data.dali.dali_backend import DaliBackend
    from mlscale.data.dali.dali_module import Dali
    from mlscale.data.data_facts import DataFacts, Promises
    from mlscale.data.images.image_folder import FolderBackend
    from mlscale.data.images.image_modules import ImageData, ImageFolder, ImageTable, TFRecord, WebDataset
    from mlscale.data.images.image_table import ImageTableBackend
    from mlscale.data.images.labelled_images import ImageBackend
    from mlscale.data.images.tfrecord import RecordBackend
    from mlscale.data.images.webdataset import TarBackend
    from mlscale.data.map_dataset import DatasetData
    from mlscale.data.plain_loader import Loader
    from mlscale.data.shards.sample_source import MarkedSource, SampleSource
    from mlscale.data.tables.table_data import BreastCancer, Diabetes, TableFiles
    from mlscale.data.text.text_files import TextFiles
    from mlscale.data.text.text_rows import TextTable
    from mlscale.data.text.token_data import TokenFiles

__all__ = [
    "Augment",
    "Backend",
    "BreastCancer",
    "Dali",
    "DaliBackend",
    "DataFacts",
    "DatasetData",
    "Diabetes",
    "Digits",
    "DigitsScenes",
    "FashionMNIST",
    "FolderBackend",
    "ImageBackend",
    "ImageData",
    "ImageFolder",
    "ImageTable",
    "ImageTableBackend",
    "Loader",
    "MarkedSource",
    "Promises",
    "PythonDocs",
    "PythonSource",
    "RandomCrop",
    "RecordBackend",
    "SampleSource",
    "TFRecord",
    "TableFiles",
    "TarBackend",
    "TextFiles",
    "TextTable",
    "TokenFiles",
    "WebDataset",
]

_NAMES_BY_MODULE = {
    "augmentations.augmentation": ("Augment",),
    "backend": ("Backend",),
    "tables.table_data": ("BreastCancer", "Diabetes", "TableFiles"),
    "dali.dali_module": ("Dali",),
    "dali.dali_backend": ("DaliBackend",),
    "data_facts": ("DataFacts", "Promises"),
    "map_dataset": ("DatasetData",),
    "builtin.image_sets": ("Digits", "FashionMNIST"),
    "builtin.digit_scenes": ("DigitsScenes",),
    "images.image_folder": ("FolderBackend",),
    "images.labelled_images": ("ImageBackend",),
    "images.image_modules": ("ImageData", "ImageFolder", "ImageTable", "TFRecord", "WebDataset"),
    "images.image_table": ("ImageTableBackend",),
    "plain_loader": ("Loader",),
    "shards.sample_source": ("MarkedSource", "SampleSource"),
    "builtin.python_docs": ("PythonDocs",),
    "builtin.python_source": ("PythonSource",),
    "augmentations.random_crop": ("RandomCrop",),
    "images.tfrecord": ("RecordBackend",),
    "images.webdataset": ("TarBackend",),
    "text.text_files": ("TextFiles",),
    "text.text_rows": ("TextTable",),
    "text.token_data": ("TokenFiles",),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _NAMES_BY_MODULE.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
