"""Small shards and folders, and a cache of the test's own."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MLSCALE_CACHE", str(folder))
    return folder


def picture(number: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB", kind: str = "PNG") -> bytes:
    """An image of (width, height) whose pixels are a function of its number."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.RandomState(number).randint(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def mask(number: int, *, size: tuple[int, int] = (8, 8), classes: int = 3) -> bytes:
    """A mask of (width, height): each pixel's class is that of the image of the same number; the first is ignored."""
    pixels = np.random.RandomState(number).randint(0, 256, (size[1], size[0]), dtype=np.uint8) % classes
    pixels = pixels.astype(np.uint8)
    pixels[0, 0] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_masked(folder: Path, count: int, *, size: tuple[int, int] = (8, 8), classes: int = 3) -> Path:
    """Grey images with their masks, and the numbers of the classes that are in them, over two tars."""
    for shard in range(2):
        members: list[tuple[str, bytes]] = []
        for i in range(shard, count, 2):
            there = sorted({i % classes, (i // classes) % classes})
            members += [(f"{i:05}.png", picture(i, mode="L", size=size)), (f"{i:05}.mask.png", mask(i, size=size))]
            members += [(f"{i:05}.json", json.dumps(there).encode())]
        write_tar(folder / f"{shard:03}.tar", members)
    return folder


def write_shards(
    folder: Path,
    count: int,
    *,
    classes: int = 3,
    shards: int = 2,
    names: Mapping[int, str] | None = None,
    **kwargs: object,
) -> Path:
    """`count` images over `shards` tars: sample i has class i modulo `classes`."""
    mode, size = str(kwargs.get("mode", "RGB")), kwargs.get("size", (8, 8))
    assert isinstance(size, tuple)
    for shard in range(shards):
        members: list[tuple[str, bytes]] = []
        for i in range(shard, count, shards):
            label = names[i % classes] if names else str(i % classes)
            members += [(f"{i:05}.png", picture(i, mode=mode, size=size)), (f"{i:05}.cls", label.encode())]
        write_tar(folder / f"{shard:03}.tar", members)
    return folder
