"""Writes the samples of a window as WebDataset shards, the format of the champion's own data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlscale.atomic_files import make_folders
from mlscale.data.shards.secure_webdataset import TarWriter
from mlscale.errors import MLScaleError

SHARD_SIZE = 1000
_TEXTS = ("cls", "cls2", "txt", "text")  # label members that hold a number or a name as text


def check_images(dtype: str, shape: Sequence[int], label_key: str = "cls") -> None:
    """Raise unless samples can be written.

    Args:
        dtype, shape: of one sample.
        label_key: extension of the label member.

    Raises:
        MLScaleError: they are not images, or their labels are not text.
    """
    if dtype != "uint8" or len(shape) != 3 or shape[0] not in (1, 3):
        raise MLScaleError(
            f"the model takes {dtype} {tuple(shape)}, no images",
            where="servable",
            why="retraining writes uint8 (1 or 3 channels, height, width) as PNG",
            fix="train it again on your own data: mlscale like=<its run> init_from=<its run> data=…",
        )
    if label_key not in _TEXTS:
        raise MLScaleError(
            f"labels of the champion's data are .{label_key} members",
            where="data.label_key",
            why=f"retraining writes text: {', '.join(_TEXTS)}",
            fix="write the data again with labels as text in .cls members, and train on it with data.label_key=cls",
        )


def write_shards(
    folder: Path, raw: NDArray[np.uint8], labels: Sequence[str], *, label_key: str = "cls", shard_size: int = SHARD_SIZE
) -> None:
    """Write `key.png` and `key.cls` of each sample, uncompressed and without times, so that the bytes are reproducible.

    Args:
        folder: the new folder of `000.tar`, `001.tar`, ….
        raw: images (n, 1 or 3, height, width).
        labels: the content of the label member, for each.
        label_key: extension of the label member.
        shard_size: the most samples of a shard.
    """
    make_folders(folder)
    for number, start in enumerate(range(0, len(raw), shard_size)):
        # webdataset's writer is given an open file: in secure mode it opens none itself.
        with (folder / f"{number:03}.tar").open("wb") as stream, TarWriter(stream, mtime=0) as writer:
            for key in range(start, min(start + shard_size, len(raw))):
                writer.write({"__key__": f"{key:06}", "png": _encode_png(raw[key]), label_key: labels[key].encode()})


def _encode_png(image: NDArray[Any]) -> bytes:
    # PNG has the channels last; grey images have no axis for them.
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    # Level 0: compression would take most of the time, and its bytes may differ between versions of zlib.
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
