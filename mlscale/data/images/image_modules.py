"""Backends of images as Lightning's data modules: what `data._target_` names, and recipes are made of."""

from __future__ import annotations

from mlscale.data.data_module import OrderedData
from mlscale.data.images.image_folder import FolderBackend
from mlscale.data.images.labelled_images import ImageBackend
from mlscale.data.images.tfrecord import RecordBackend
from mlscale.data.images.webdataset import TarBackend


class ImageData(ImageBackend, OrderedData):
    """Labelled images from any backend; see `ImageBackend`."""


class WebDataset(TarBackend, ImageData):
    """Labelled images in tar shards; see `TarBackend`."""


class ImageFolder(FolderBackend, ImageData):
    """Labelled images in folders; see `FolderBackend`."""


class TFRecord(RecordBackend, ImageData):
    """Labelled images in TFRecord files; see `RecordBackend`."""
