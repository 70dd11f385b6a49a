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

from mlscale.data.decoding.fast_decoder import Pixels, get_thread_buffer
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
