"""Resize: each axis by itself, as a sum of a few gathered places times their weights, as the standard defines it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register

_MODES = ("nearest", "linear", "cubic")
_Floats = NDArray[np.float64]


@register("Resize", fixed=(1, 2), folded=(3,))
def resize(node: GraphNode, x: Tensor, region: Tensor = None, scales: Tensor = None, sizes: Tensor = None) -> Tensor:
    """Return x with its axes resized."""
    node.refuse_attributes(keep_aspect_ratio_policy="stretch")
    if (mode := node.get("mode", "nearest")) not in _MODES:
        raise NotExpressible(f"mode={mode}")
    is_scaled = scales is not None and scales.size > 0
    given = scales.tolist() if is_scaled else _find_sizes(sizes)
    axes = node.get("axes") or range(len(x.shape))
    for axis, value in zip(axes, given, strict=True):
        size = x.shape[axis]
        if (is_scaled and value == 1) or (not is_scaled and value == size):
            continue
        if size is None or value is None:
            raise NotExpressible("an axis of any size")
        target = int(np.floor(size * np.float32(value))) if is_scaled else int(value)
        x = _resize_axis(node, x, axis, target, float(value) if is_scaled else target / size)
    return x


def _find_sizes(sizes: Tensor) -> list[int | None]:
    """Return the sizes that are known of a shape: that of the batch is computed."""
    if isinstance(sizes, np.ndarray):
        return [int(size) for size in sizes]
    known: list[int | None] = tf.zeros(sizes).shape.as_list()
    return known


def _resize_axis(node: GraphNode, x: Tensor, axis: int, target: int, scale: float) -> Tensor:
    """Return x with one axis resized: the sum over taps of gathered values times their weights."""
    size = x.shape[axis]
    centres = _find_centres(node, size, target, scale)
    if node.get("mode", "nearest") == "nearest":
        return tf.gather(x, np.clip(_round_places(node, centres), 0, size - 1).astype(np.int64), axis=axis)
    places, weights = _compute_taps(node, centres, scale, size)
    shape = (-1, *(1,) * (len(x.shape) - axis - 1))
    taps = zip(places.T, weights.T, strict=True)
    dtype = x.dtype.as_numpy_dtype
    return tf.add_n([tf.gather(x, at, axis=axis) * weight.astype(dtype).reshape(shape) for at, weight in taps])


def _find_centres(node: GraphNode, size: int, target: int, scale: float) -> _Floats:
    """Return the position in the given axis of each place of the resized one."""
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    # In float32, as in ONNX Runtime: the nearest place depends on the last digit.
    places, factor = np.arange(target, dtype=np.float32), np.float32(scale)
    if mode == "align_corners":
        return _convert_to_float64(places * np.float32(size - 1) / np.float32(max(target - 1, 1)))
    if mode == "asymmetric":
        return _convert_to_float64(places / factor)
    if mode == "pytorch_half_pixel" and target == 1:
        return _convert_to_float64(places * 0)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return _convert_to_float64((places + np.float32(0.5)) / factor - np.float32(0.5))
    raise NotExpressible(f"coordinate_transformation_mode={mode}")


def _convert_to_float64(places: NDArray[np.float32]) -> _Floats:
    return places.astype(np.float64)


def _round_places(node: GraphNode, centres: _Floats) -> _Floats:
    mode = node.get("nearest_mode", "round_prefer_floor")
    if mode == "round_prefer_floor":
        return np.ceil(centres - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(centres + 0.5)
    return np.floor(centres) if mode == "floor" else np.ceil(centres)


def _compute_taps(node: GraphNode, centres: _Floats, scale: float, size: int) -> tuple[NDArray[np.int64], _Floats]:
    """Return the places that each value is made of and their weights, (target, taps) each."""
    is_cubic = node.get("mode") == "cubic"
    # With `antialias` the kernel is widened to all places that fall into one.
    width = max(1.0, 1 / scale) if node.get("antialias", 0) else 1.0
    reach = (2 if is_cubic else 1) * width
    first = np.floor(centres - reach).astype(np.int64) + 1
    places = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 1)
    distances = np.abs(places - centres[:, None]) / width
    weights = (
        _compute_cubic_weights(distances, node.get("cubic_coeff_a", -0.75))
        if is_cubic
        else np.maximum(1 - distances, 0)
    )
    if node.get("exclude_outside", 0):
        # Else those at the edge are repeated.
        weights = np.where((places >= 0) & (places < size), weights, 0)
    weights /= weights.sum(1, keepdims=True)
    is_used = (weights != 0).any(0)
    return np.clip(places, 0, size - 1)[:, is_used], weights[:, is_used]


def _compute_cubic_weights(distance: _Floats, a: float) -> _Floats:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
