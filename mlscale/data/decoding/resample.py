"""A part of a picture, brought to a size: bilinear and antialiased.

torch's resize of uint8 is the fastest that releases the interpreter's lock. It is given pixels that lie together, which
it works on in the calling thread alone: for others it would wake threads of its own in every thread of a loader. Where
torch is not loaded, as in a server, `resize_uint8` gives the same values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mlscale.data.decoding.fast_decoder import EncodedPicture, Pixels, get_thread_buffer
from mlscale.data.decoding.resize import resize_uint8


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


ChooseBox = Callable[[int, int, tuple[int, int]], Box]
"""The part of a picture (height, width) that becomes an image of a size (height, width)."""


def find_middle_box(height: int, width: int, size: tuple[int, int]) -> Box:
    """Return the largest part in the middle that has the proportions of `size` (height, width)."""
    if width * size[0] >= height * size[1]:
        part = max(1, round(height * size[1] / size[0]))
        return Box(0, (width - part) // 2, height, part)
    part = max(1, round(width * size[0] / size[1]))
    return Box((height - part) // 2, 0, part, width)


def decode_region(picture: EncodedPicture, channels: int, box: Box, size: tuple[int, int]) -> Pixels:
    """Decode the part in `box` and resize it to `size`.

    A part that is at least twice as large is decoded at half the size, and so on: a JPEG decoder leaves the finer
    frequencies out, at a fraction of the time.

    Args:
        picture: see `open_picture`.
        channels: 1 or 3.
        box: the part of it.
        size: height and width of the result.

    Returns:
        uint8 (height, width, channels), a new array.
    """
    shrink = next((f for f in (8, 4, 2) if box.height >= f * size[0] and box.width >= f * size[1]), 1)
    pixels = picture.decode_pixels(channels, shrink)
    # Only the decoder of plain JPEGs shrinks; the array shows whether it was used.
    if pixels.shape[0] < picture.height:
        height, width = box.height // shrink, box.width // shrink
        # Rounded, and kept inside the smaller picture.
        top = min(round(box.top / shrink), pixels.shape[0] - height)
        box = Box(top, min(round(box.left / shrink), pixels.shape[1] - width), height, width)
    return resize_region(pixels, box, size)


def resize_region(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """Resize the part in `box` of an array (h, w, channels) to `size` (height, width); a new array, same dtype."""
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    if part.shape[:2] == size:
        return part.copy()
    if part.dtype == np.uint8 and "torch" not in sys.modules:
        return resize_uint8(part, size)
    return _resize_by_torch(part, size)


def _resize_by_torch(part: Pixels, size: tuple[int, int]) -> Pixels:
    from torch import from_numpy
    from torch.nn.functional import interpolate

    together = part
    if not (part.flags.c_contiguous and part.flags.writeable):
        together = get_thread_buffer("part", part.nbytes)[: part.nbytes].view(part.dtype).reshape(part.shape)
        together[...] = part
    # numpy's views: each of torch's is an operation, whose code decoding has pushed out of the processor's cache.
    resized = interpolate(from_numpy(together[None].transpose(0, 3, 1, 2)), size, mode="bilinear", antialias=True)
    result: Pixels = resized.numpy()[0].transpose(1, 2, 0)
    return result
