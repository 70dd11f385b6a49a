"""Images of production as WebDataset shards, which `data=webdataset` reads, too."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import make_folders
from mlscale.data.class_labels import Classes, encode_labels, parse_label
from mlscale.data.label_kinds import LABELS, EncodedLabels, encode_multi_hot, read_labels
from mlscale.data.shards.index_builder import build_index
from mlscale.data.shards.sample_source import TarSource
from mlscale.data.shards.shard_paths import find_shards
from mlscale.data.windows.window_folder import WHERE

SHARD_SIZE = 1000


def write_image_window(
    folder: Path,
    images: Sequence[NDArray[Any]],
    labels: Sequence[Any],
    *,
    kind: str,
    is_named: bool,
    shard_size: int = SHARD_SIZE,
) -> None:
    """Write `key.png` and the label of each image, uncompressed and without times, so that the bytes are reproducible.

    Args:
        folder: the new folder of `000.tar`, `001.tar`, ….
        images: pixels (channels, height, width): uint8 of one or three channels, others become `.npy` members.
        labels: the name of a class, a list of names, or a mask as a PNG in base64, by `kind`.
        kind: of the labels, a word of `data.labels`.
        is_named: classes have names; else the names are numbers.
        shard_size: the most samples of a shard.
    """
    # Imported on use: training alone writes no windows.
    from mlscale.data.shards.secure_webdataset import TarWriter

    make_folders(folder)
    for number, start in enumerate(range(0, len(images), shard_size)):
        # webdataset's writer is given an open file: in secure mode it opens none itself.
        with (folder / f"{number:03}.tar").open("wb") as stream, TarWriter(stream, mtime=0) as writer:
            for key in range(start, min(start + shard_size, len(images))):
                label = {LABELS[kind]: _write_label(labels[key], kind, is_named)}
                writer.write({"__key__": f"{key:06}", **_write_image(images[key]), **label})


def open_image_window(folder: Path, kind: str) -> TarSource:
    """Return the samples of a part of a window.

    Args:
        folder: as `write_image_window` wrote it.
        kind: of the labels.
    """
    index = build_index(find_shards(str(folder), where=WHERE), where=WHERE)
    return TarSource(index, image_key=None, label_key=LABELS[kind], allow=(), where=WHERE, one=False)


def encode_window_labels(source: TarSource, kind: str, classes: Classes) -> EncodedLabels:
    """Return the labels of a window by number, as those of the training split; empty of masks.

    Args:
        source: of the window.
        kind: of the labels.
        classes: of the training split.
    """
    if kind == "mask":
        return np.empty(0, np.int64)
    extension, contents = source.read_labels()
    if kind == "several":
        return encode_multi_hot(read_labels(extension, contents, source.get_key, where=WHERE), classes, where=WHERE)
    # Not as shards are read otherwise: a class may be called 7.
    labels = [parse_label(content.decode(), classes.names is None) for content in contents]
    return encode_labels(labels, classes, where=WHERE)


def _write_image(image: NDArray[Any]) -> dict[str, bytes]:
    buffer = io.BytesIO()
    if image.dtype != np.uint8 or len(image) not in (1, 3):
        np.save(buffer, np.ascontiguousarray(image), allow_pickle=False)
        return {"npy": buffer.getvalue()}
    # PNG has the channels last; grey images have no axis for them.
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    # Imported on use: it is not needed where no window is written.
    from PIL import Image

    # Level 0: compression would take most of the time, and its bytes may differ between versions of zlib.
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=0)
    return {"png": buffer.getvalue()}


def _write_label(label: Any, kind: str, is_named: bool) -> bytes:
    if kind == "mask":
        return base64.b64decode(label)
    if kind == "several":
        return json.dumps([name if is_named else int(name) for name in label], ensure_ascii=False).encode()
    return str(label).encode()
