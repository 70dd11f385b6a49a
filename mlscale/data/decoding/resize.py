"""Resize uint8 images without torch: bilinear and antialiased, bitwise equal to torch's own.

torch's kernel for uint8 computes with whole numbers: Pillow's triangle filter, its weights rounded to 16 bits with the
largest precision that fits; the width first, then the height, each rounded to uint8. So does this, in numpy, for
servers that run without torch; a test compares the two.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
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
