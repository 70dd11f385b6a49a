"""EXIF orientation: read from what cameras write, and never from what is no EXIF."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import ImageOps

from mlscale.data.decoding.fast_decoder import read_orientation, rotate_upright
from tests.awkward import photo


def block(order: str, kind: int, value: bytes, tag: int = 0x0112) -> bytes:
    """An EXIF block of one other entry and the orientation."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    other = struct.pack(f"{order}HHI4s", 0x0100, 3, 1, bytes(4))
    return head + struct.pack(f"{order}IH", 8, 2) + other + struct.pack(f"{order}HHI4s", tag, kind, 1, value)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "layout"), [(3, "Hxx"), (4, "I"), (1, "Bxxx")])
def test_every_way_to_write_it(order: str, kind: int, layout: str) -> None:
    for value in range(1, 9):
        exif = block(order, kind, struct.pack(order + layout, value))
        assert read_orientation(exif) == read_orientation(b"Exif\0\0" + exif) == value


def test_nonsense_is_upright() -> None:
    right = block("<", 3, b"\6\0\0\0")
    for wrong in (
        b"",
        b"II",
        b"Exif\0\0",
        right[:20],
        b"xx" + right[2:],
        b"II*\0" + b"\xff" * 40,
        right[:-4] + b"\x09\0\0\0",
    ):
        assert read_orientation(wrong) == 1
    assert read_orientation(block("<", 3, b"\6\0\0\0", tag=0x0113)) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_pillows(orientation: int) -> None:
    image = photo(5, 7)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(
        rotate_upright(np.asarray(photo(5, 7)), orientation), np.asarray(ImageOps.exif_transpose(image))
    )
