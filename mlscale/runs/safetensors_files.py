"""Safetensors files, by their library, which checks a header before it uses it; and the index of several files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError

SUFFIX = ".safetensors"
INDEX = ".safetensors.index.json"
_MOST_INDEX = 64 << 20  # bytes of a sharded model's index


@contextmanager
def open_safetensors(path: Path, framework: str = "numpy") -> Iterator[Any]:
    """Open a file with the library's `safe_open`; only `pt` needs torch.

    Raises:
        MLScaleError: it is truncated, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except SafetensorError as error:
        raise MLScaleError(
            "this safetensors file can't be used", where=str(path), why=str(error), fix="copy or download it again"
        ) from error


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
