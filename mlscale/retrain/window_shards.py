"""Writes the samples of a window as WebDataset shards, the format of the champion's own data."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlscale.atomic_files import make_folders
from mlscale.data.shards.secure_webdataset import TarWriter
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from mlscale.data.images.decoded_cache import DecodedSamples

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


def read_shards(folder: Path, *, label_key: str = "cls") -> tuple[list[bytes], list[str]]:
    """Return the images, as PNG files, and the labels that `write_shards` wrote, in their order."""
    members: dict[str, list[bytes]] = {"png": [], label_key: []}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None
                members[member.name.partition(".")[2]].append(content.read())
    return members["png"], [label.decode() for label in members[label_key]]


def write_shards_without(
    folder: Path,
    samples: DecodedSamples,
    classes: NDArray[np.int64],
    *,
    names: Sequence[str] | None,
    label_key: str = "cls",
    shard_size: int = SHARD_SIZE,
) -> tuple[str, ...]:
    """Write samples without those of some classes, and return the paths of the shards.

    Args:
        folder: the new folder of `00000/000.tar`, `00001/000.tar`, ….
        samples: of the champion's training data.
        classes: numbers of the classes that are left out.
        names: of the classes by number; None to write the numbers.
        label_key: extension of the label member.
        shard_size: the most samples of a shard, and in memory.
    """
    rows = np.flatnonzero(~np.isin(samples.labels, classes)).tolist()
    paths = []
    for start in range(0, len(rows), shard_size):
        chosen = rows[start : start + shard_size]
        raw = np.stack([samples.get_sample(row) for row in chosen])
        numbers = [int(samples.labels[row]) for row in chosen]
        texts = [str(number) if names is None else names[number] for number in numbers]
        part = folder / f"{start // shard_size:05}"
        write_shards(part, raw, texts, label_key=label_key, shard_size=shard_size)
        paths.append(str(part / "000.tar"))
    return tuple(paths)


def _encode_png(image: NDArray[Any]) -> bytes:
    # PNG has the channels last; grey images have no axis for them.
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    # Level 0: compression would take most of the time, and its bytes may differ between versions of zlib.
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
