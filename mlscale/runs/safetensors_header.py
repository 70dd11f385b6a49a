"""Read the header of a safetensors file, names and positions of its tensors, and check all of it before use.

The format (https://huggingface.co/docs/safetensors): 8 bytes with the length of a JSON header, the header, the bytes of
all tensors without a gap. The file is not trusted, so nothing is allocated by a number in it before that was compared
with the size of the file. Nothing here needs torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from mlscale.errors import MLScaleError

SUFFIX = ".safetensors"
INDEX = ".safetensors.index.json"
SIZES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of one value, by the name of its type."""
_LENGTH_BYTES = 8
_MOST_HEADER = 100_000_000  # bytes; the limit of the format's own library
_MOST_INDEX = 64 << 20  # bytes of a sharded model's index
_METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorLocation:
    """The type, shape and position of a tensor in the file.

    Attributes:
        dtype: a key of `SIZES`.
        shape: its sizes.
        start, end: bytes in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """The checked header of a file.

    Attributes:
        tensors: by name.
        metadata: free texts of the file's author, such as `format` and `license`.
    """

    tensors: Mapping[str, TensorLocation]
    metadata: Mapping[str, str]


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of the file `path`.

    Raises:
        MLScaleError: it is truncated, or not a safetensors file.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            _refuse_file(path, "it is cut short: its header would end behind its last byte")
        if length > _MOST_HEADER:
            _refuse_file(path, f"its header would have {length:,} bytes, and may have {_MOST_HEADER:,}")
        text = file.read(length)
    try:
        document = json.loads(text, object_pairs_hook=_reject_duplicate_names)
        metadata = document.pop(_METADATA, None) or {}
        tensors = {name: _parse_tensor_entry(entry, _LENGTH_BYTES + length) for name, entry in document.items()}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that is not text")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        _refuse_file(path, f"its header can't be read: {str(error) or type(error).__name__}")
    end = _LENGTH_BYTES + length
    # Sorted by the end, too: an empty tensor starts where the next one does, and must come before it.
    for name, location in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if location.start != end:
            _refuse_file(path, f"{name} does not begin where the tensor before it ends")
        end = location.end
    if end > size:
        _refuse_file(path, f"it is cut short: {size:,} bytes of {end:,}")
    if end < size:
        _refuse_file(path, f"{size - end:,} bytes belong to no tensor")
    return SafetensorsHeader(tensors, metadata)


def list_shard_files(index: Path) -> tuple[Path, ...]:
    """Return the files that `model.safetensors.index.json` names, all in its folder.

    Raises:
        MLScaleError: it is corrupted, or a file is missing.
    """
    try:
        if index.stat().st_size > _MOST_INDEX:
            raise ValueError("it is too large")
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if not names:
            raise ValueError("it names no files")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise MLScaleError(
            "the index of these weights can't be read",
            where=str(index),
            why=repr(error),
            fix="copy or download the weights again, the index with all the files that it names",
        ) from error
    if odd := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise MLScaleError(
            "the index of these weights leads out of its folder",
            where=str(index),
            why=repr(odd[0]),
            fix="copy or download the weights again, the index with all the files that it names",
        )
    if gone := [name for name in names if not (index.parent / name).is_file()]:
        raise MLScaleError(
            f"{len(gone)} of {len(names)} files of these weights are missing",
            where=str(index.parent),
            why=gone[0],
            fix="copy or download the weights again, the index with all the files that it names",
        )
    return tuple(index.parent / name for name in names)


def _parse_tensor_entry(entry: Mapping[str, Any], begin: int) -> TensorLocation:
    """Return the position of a tensor from its entry in the header.

    Raises:
        ValueError, TypeError, KeyError: the entry is not valid.
    """
    dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in SIZES:
        raise ValueError(f"tensors of type {dtype!r} are not read")
    # Not isinstance: `True` is an int for Python.
    if any(type(number) is not int or number < 0 for number in (*shape, start, end)):
        raise ValueError("a size or an offset that is not a whole number")
    if end - start != prod(shape) * SIZES[dtype]:
        raise ValueError("a tensor whose shape does not fit its bytes")
    return TensorLocation(dtype, tuple(shape), begin + start, begin + end)


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON readers differ in which of two equal names they keep: such a file would mean different tensors to each.
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name that stands there twice")
    return entries


def _refuse_file(path: Path, why: str) -> NoReturn:
    raise MLScaleError("this safetensors file can't be used", where=str(path), why=why, fix="copy or download it again")
