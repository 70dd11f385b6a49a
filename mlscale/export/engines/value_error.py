"""Measure how far a value of a graph is from what it should be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MASKED = np.float32(1e37)
"""What torch masks by minus infinity, ONNX may mask by the least number."""


def measure_error(expected: NDArray[Any], actual: Any) -> float:
    """Return the largest difference, divided by the largest finite value.

    It is 1 for integers that differ anywhere, and infinite where the shapes or what is finite differ.

    Args:
        expected: what torch computes.
        actual: what ONNX Runtime computes, or the exception that it raises.
    """
    if isinstance(actual, Exception) or actual.shape != expected.shape:
        return np.inf
    if expected.dtype.kind != "f":
        return float(not np.array_equal(expected, actual))
    # The difference of two float16 values can overflow, and its steps are coarse.
    wanted, got = expected.astype(np.float32), actual.astype(np.float32)
    is_finite = np.abs(wanted) < _MASKED
    # A mask of -inf and one of the lowest number are both right, as long as they mask the same places.
    if not np.array_equal(is_finite, np.abs(got) < _MASKED):
        return np.inf
    if not is_finite.any():
        return 0.0
    # A value that is 0 throughout must not be divided by.
    largest = max(float(np.abs(wanted[is_finite]).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(got[is_finite] - wanted[is_finite]).max()) / largest
