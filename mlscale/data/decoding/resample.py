"""A part of a picture, brought to a size: bilinear and antialiased.

torch's resize of uint8 is the fastest that releases the interpreter's lock. It is given pixels that lie together, which
it works on in the calling thread alone: for others it would wake threads of its own in every thread of a loader. Where
torch is not loaded, as in a server, `resize_uint8` gives the same values.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.fast_decoder import Pixels, get_thread_buffer


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


_WEIGHT_BITS = 15
_MAX_PRECISION = 22
_BLOCK = 1 << 20
"""Values that are computed with at once."""


def resize_uint8(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an array (h, w, channels) to `size` (height, width); a new array."""
    height, width, channels = pixels.shape
    narrowed = np.empty((size[1], height, channels), np.uint8)
    step = max(1, _BLOCK // (width * channels))
    for first in range(0, height, step):  # a picture of many pixels takes little memory besides itself
        part = pixels[first : first + step]
        turned = _transpose_pixels(part).reshape(width, len(part) * channels)
        narrowed[:, first : first + step] = _resize_rows(turned, size[1]).reshape(size[1], len(part), channels)
    rows = _transpose_pixels(narrowed).reshape(height, size[1] * channels)
    return _resize_rows(rows, size[0]).reshape(*size, channels)


def _transpose_pixels(pixels: Pixels) -> Pixels:
    """Swap height and width; channel by channel, which is four times as fast as all at once."""
    result = np.empty((pixels.shape[1], pixels.shape[0], pixels.shape[2]), np.uint8)
    for channel in range(pixels.shape[2]):
        result[..., channel] = pixels[..., channel].T
    return result


class _ResizeFilter(NamedTuple):
    """The rows that each result is a mean of, int (taps, n), and their weights, int32 (taps, n, 1)."""

    rows: NDArray[np.intp]
    weights: NDArray[np.int32]
    precision: int


def _resize_rows(values: Pixels, count: int) -> Pixels:
    """Resize an array (n, m) to `count` rows."""
    if len(values) == count:
        return values.copy()
    result = np.empty((count, values.shape[1]), np.uint8)
    step = max(1, _BLOCK // len(values))
    for first in range(0, values.shape[1], step):
        block = slice(first, first + step)
        result[:, block] = _resize_block(values[:, block], count)
    return result


def _resize_block(values: Pixels, count: int) -> Pixels:
    rows, weights, precision = _compute_filter(len(values), count)
    wide = values.astype(np.int32)
    # Half of the last unit, so that the shift below rounds.
    total = np.full((count, values.shape[1]), 1 << (precision - 1), np.int32)
    product = np.empty_like(total)
    for taps, weight in zip(rows, weights, strict=True):
        # Rows are in range; with the mode 'raise' numpy would buffer `out`.
        np.take(wide, taps, axis=0, out=product, mode="clip")
        product *= weight
        total += product
    total >>= precision
    return total.astype(np.uint8)  # weights are not negative and add up to 1, or a rounding more


@lru_cache(maxsize=256)
def _compute_filter(before: int, after: int) -> _ResizeFilter:
    scale = before / after
    support = max(1.0, scale)
    centres = scale * (np.arange(after) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    sizes = np.minimum((centres + support + 0.5).astype(np.int64), before) - first
    taps = np.arange(math.ceil(support) * 2 + 1)
    distances = (taps + first[:, None] - centres[:, None] + 0.5) * (1 / support)
    shares = np.where(taps < sizes[:, None], np.maximum(1 - np.abs(distances), 0), 0)
    shares /= shares.sum(axis=1, keepdims=True)
    precision = _choose_precision(float(shares.max()))
    weights = (shares * (1 << precision) + 0.5).astype(np.int32)
    used = int(sizes.max())
    rows: NDArray[Any] = np.minimum(first[None] + taps[:used, None], before - 1)
    return _ResizeFilter(rows, np.ascontiguousarray(weights.T[:used, :, None]), precision)


def _choose_precision(most: float) -> int:
    """Return the largest precision at which every weight fits."""
    fits = (p for p in range(_MAX_PRECISION) if int(0.5 + most * (1 << (p + 1))) >= 1 << _WEIGHT_BITS)
    return next(fits, _MAX_PRECISION)
