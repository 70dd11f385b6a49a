"""The operations of `Kind` in DALI's own operators; each takes and returns float32 (h, w, channels) from 0 to 255.

Where an operation of torchvision ends in uint8, its result here is made whole in the same way: by rounding, or by
cutting the fraction off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dali_math

from mlscale.data.dali.operations import Kind

if TYPE_CHECKING:
    from nvidia.dali.data_node import DataNode

_GREY = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in torchvision's grey."""
_BLUR = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's SMOOTH, by which torchvision sharpens."""
_TOP = 255.0


def _move_smoothly(images: DataNode, values: DataNode) -> DataNode:
    return _warp(images, values, types.INTERP_LINEAR)


def _move_bilinear(images: DataNode, values: DataNode) -> DataNode:
    return dali_math.floor(_move_smoothly(images, values) + 0.5)


def _move_filled(images: DataNode, values: DataNode) -> DataNode:
    # torchvision weighs a pixel at the border twice by its part that is inside: when it samples, and when it fills.
    inside = _warp(fn.ones_like(images), values, types.INTERP_LINEAR)
    return dali_math.floor(_move_smoothly(images, values) * inside + 0.5)


def _move_nearest(images: DataNode, values: DataNode) -> DataNode:
    return _warp(images, values, types.INTERP_NN)


def _warp(images: DataNode, values: DataNode, interpolation: DataNode) -> DataNode:
    # From the output to the input, as torch samples a grid.
    matrix = fn.reshape(values, shape=[2, 3])
    return fn.warp_affine(images, matrix=matrix, fill_value=0, interp_type=interpolation, inverse_map=True)


def _adjust_brightness(images: DataNode, values: DataNode) -> DataNode:
    return _cut(images * values[0])


def _adjust_contrast(images: DataNode, values: DataNode) -> DataNode:
    mean = fn.reductions.mean(dali_math.floor(_compute_grey(images)), axes=[0, 1, 2], keep_dims=True)
    return _blend(images, mean, values)


def _adjust_grey_contrast(images: DataNode, values: DataNode) -> DataNode:
    return _blend(images, fn.reductions.mean(images, axes=[0, 1, 2], keep_dims=True), values)


def _adjust_saturation(images: DataNode, values: DataNode) -> DataNode:
    return _blend(images, dali_math.floor(_compute_grey(images)), values)


def _sharpen(images: DataNode, values: DataNode) -> DataNode:
    # torchvision leaves the outermost pixels as they are: they lack neighbours.
    sides = images.shape(dtype=types.INT32)[0:2]
    inner = fn.slice(images, start=[1, 1], shape=sides - 2, axes=[0, 1])
    change = dali_math.floor(fn.filter(images, _BLUR, mode="valid") + 0.5) - inner
    around = fn.slice(change, start=[-1, -1], shape=sides, axes=[0, 1], out_of_bounds_policy="pad")
    return _cut(images + around * (1 - values[0]))


def _posterize(images: DataNode, values: DataNode) -> DataNode:
    return dali_math.floor(images / values[0]) * values[0]


def _solarize(images: DataNode, values: DataNode) -> DataNode:
    # DALI has no `where`: an arithmetic mask chooses.
    is_bright = fn.cast(images >= values[0], dtype=types.FLOAT)
    # x + (255 - 2x) is what inverting makes of x.
    return images + is_bright * (_TOP - 2 * images)


def _stretch_contrast(images: DataNode, _: DataNode) -> DataNode:
    low = fn.reductions.min(images, axes=[0, 1], keep_dims=True)
    extent = fn.reductions.max(images, axes=[0, 1], keep_dims=True) - low
    # A channel of one value stays as it is.
    is_flat = fn.cast(extent == 0, dtype=types.FLOAT)
    return _cut((images - low * (1 - is_flat)) / (extent / _TOP + is_flat))


def _equalize(images: DataNode, _: DataNode) -> DataNode:
    # OpenCV's rule and not Pillow's: levels differ by some.
    return fn.cast(fn.equalize(fn.cast(images, dtype=types.UINT8)), dtype=types.FLOAT)


def _invert(images: DataNode, _: DataNode) -> DataNode:
    return _TOP - images


def _make_grey(images: DataNode, _: DataNode) -> DataNode:
    # Added to an image of zeros, so that the one channel becomes three.
    return _cut(images * 0 + _compute_grey(images))


def _compute_grey(images: DataNode) -> DataNode:
    """Return one channel, (h, w, 1), of three."""
    # Slices, and not indexes: the last dimension stays, and each channel broadcasts.
    red, green, blue = (images[:, :, channel : channel + 1] for channel in range(3))
    return red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]


def _blend(images: DataNode, others: DataNode, values: DataNode) -> DataNode:
    return _cut(images * values[0] + others * (1 - values[0]))


def _cut(images: DataNode) -> DataNode:
    """Return whole numbers from 0 to 255, without the fractions."""
    return dali_math.floor(dali_math.clamp(images, 0.0, _TOP))


OPERATIONS: Mapping[Kind, Callable[[DataNode, DataNode], DataNode]] = {
    Kind.SMOOTH: _move_smoothly,
    Kind.BILINEAR: _move_bilinear,
    Kind.FILLED: _move_filled,
    Kind.NEAREST: _move_nearest,
    Kind.BRIGHTNESS: _adjust_brightness,
    Kind.CONTRAST: _adjust_contrast,
    Kind.GREY_CONTRAST: _adjust_grey_contrast,
    Kind.SATURATION: _adjust_saturation,
    Kind.SHARPNESS: _sharpen,
    Kind.POSTERIZE: _posterize,
    Kind.SOLARIZE: _solarize,
    Kind.AUTOCONTRAST: _stretch_contrast,
    Kind.EQUALIZE: _equalize,
    Kind.INVERT: _invert,
    Kind.GREY: _make_grey,
}
