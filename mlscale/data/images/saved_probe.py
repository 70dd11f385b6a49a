"""Keep what some images of a data set have shown: later starts compare their bytes in place of decoding them.

A file is named by the data version and by all that decoding depends on, and has size and CRC-32 of every image that was
decoded. It is used only where the present images have the same, so the result is that of decoding them again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from mlscale import contracts
from mlscale.data.cache_folder import get_cache_dir, write_file_aside
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.images.decoded_cache import SampleShape

_FORMAT = 2
_DECODERS = ("numpy", "pillow", "simplejpeg", "torch")
"""Packages whose next version may decode some image to other pixels."""
_MIN_BYTES = 1 << 20
"""Images of less, all together, are decoded about as quickly as they are compared."""

ImageMark = tuple[str, int, int]
"""Extension, bytes and CRC-32 of an image."""


def compute_image_mark(extension: str, content: bytes) -> ImageMark:
    """Return the mark of an image, by which it is recognised."""
    return extension, len(content), zlib.crc32(content)


class SavedProbe:
    """The shape of images that were decoded before, in the cache of this machine.

    Args:
        data_version: of their split.
        settings: numbers on which the result depends besides.
    """

    def __init__(self, data_version: str, settings: Sequence[int | None]) -> None:
        named = json.dumps([_FORMAT, DECODE_VERSION, *map(_find_version, _DECODERS), data_version, *settings])
        # Next to the indexes, which are made again, too, where they are missing.
        self._path = get_cache_dir() / "index" / f"probe-{hashlib.sha256(named.encode()).hexdigest()[:32]}.json"

    @property
    def exists(self) -> bool:
        """True if something is saved."""
        return self._path.is_file()

    def load(self, marks: Sequence[ImageMark | None]) -> SampleShape | None:
        """Return the shape that was saved; None if it was of other images, or the file is corrupt."""
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            images = [tuple(mark) for mark in saved["images"]]
            if images != marks or saved["sha256"] != contracts.compute_checksum(saved):
                return None
            stated = saved["shape"]
            scale = {name: tuple(map(float, stated[name])) for name in ("mean", "std")}
            return SampleShape(**{**stated, "dtype": np.dtype(stated["dtype"]), **scale})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, marks: Sequence[ImageMark], shape: SampleShape) -> None:
        """Write the shape of images, unless they are small."""
        if sum(size for _, size, _ in marks) < _MIN_BYTES:
            return
        document: dict[str, Any] = {"images": marks, "shape": {**asdict(shape), "dtype": shape.dtype.name}}
        document["sha256"] = contracts.compute_checksum(document)
        # A cache that cannot be written costs time, not the run.
        with suppress(OSError):
            write_file_aside(self._path, json.dumps(document).encode())


def _find_version(package: str) -> str:
    """Return the version of a package, without importing it; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
