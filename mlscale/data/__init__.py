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
    from mlscale.data.text.text_table import Fortunes, TextTable
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
    "Fortunes",
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

_MODULES_BY_NAME = {
    "Augment": "augmentations.augmentation",
    "Backend": "backend",
    "BreastCancer": "tables.table_data",
    "Dali": "dali.dali_module",
    "DaliBackend": "dali.dali_backend",
    "DataFacts": "data_facts",
    "DatasetData": "map_dataset",
    "Diabetes": "tables.table_data",
    "Digits": "builtin.image_sets",
    "DigitsScenes": "builtin.digit_scenes",
    "FashionMNIST": "builtin.image_sets",
    "FolderBackend": "images.image_folder",
    "Fortunes": "text.text_table",
    "ImageBackend": "images.labelled_images",
    "ImageData": "images.image_modules",
    "ImageFolder": "images.image_modules",
    "ImageTable": "images.image_modules",
    "ImageTableBackend": "images.image_table",
    "Loader": "plain_loader",
    "MarkedSource": "shards.sample_source",
    "Promises": "data_facts",
    "PythonDocs": "builtin.python_docs",
    "PythonSource": "builtin.python_source",
    "RandomCrop": "augmentations.random_crop",
    "RecordBackend": "images.tfrecord",
    "SampleSource": "shards.sample_source",
    "TFRecord": "images.image_modules",
    "TableFiles": "tables.table_data",
    "TarBackend": "images.webdataset",
    "TextFiles": "text.text_files",
    "TextTable": "text.text_table",
    "TokenFiles": "text.token_data",
    "WebDataset": "images.image_modules",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES_BY_NAME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
