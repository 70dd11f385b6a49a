"""EXIF orientation: reading it, and turning the pixels of a picture upright."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
_TAG = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_VALUE_FORMATS = {1: "B", 3: "H", 4: "I"}
"""Types that the value may be written as: the standard asks for the second."""
_ENTRY_BYTES = 12


def read_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that an EXIF block names; 1 where it names none, or is corrupt.

    Args:
        exif: a TIFF header and its first directory, with or without the prefix 'Exif'.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(block[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for offset in range(start + 2, start + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
            tag, kind = struct.unpack_from(f"{order}HH", block, offset)
            if tag == _TAG:
                # A value of up to four bytes is in the entry itself.
                (value,) = struct.unpack_from(f"{order}{_VALUE_FORMATS.get(kind, 'H')}", block, offset + 8)
                return int(value) if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT


def is_turned(orientation: int) -> bool:
    """Return True if height and width are swapped."""
    return orientation >= 5


def rotate_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of pixels (h, w, …) the right way up."""
    # 5 to 8 are transposed; then rows and columns are reversed as the orientation needs.
    turned = np.swapaxes(pixels, 0, 1) if is_turned(orientation) else pixels
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
