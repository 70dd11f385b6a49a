"""Casts the tensors that a client has made to the dtype and shape that a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port


def cast_input(raw: NDArray[Any], port: Port) -> NDArray[Any]:
    """Return `raw` in the dtype and memory order of `port`.

    Raises:
        MLScaleError: another shape, or values that the dtype can't hold, such as pixels from 0 to 1 for a uint8 input.
    """
    raw = np.asarray(raw)
    if raw.ndim != len(port.shape) or raw.shape[1:] != port.shape[1:]:
        raise _build_shape_error(raw, port)
    if raw.dtype == port.dtype:
        return np.ascontiguousarray(raw)
    if raw.dtype.kind not in "buif":
        raise MLScaleError(
            f"the values are {raw.dtype}",
            where=port.name,
            why=f"the model takes {port.dtype}",
            fix=f"values.astype('{port.dtype}'), which are numbers",
        )
    # A cast wraps around or truncates without an error, so the result is compared with the original. float32 can't hold
    # every float64 exactly: numbers are rounded, but not to infinity.
    with np.errstate(invalid="ignore", over="ignore"):
        cast = raw.astype(port.dtype)
        is_held = np.isfinite(cast) == np.isfinite(raw) if port.dtype == "float32" else cast == raw
    if not is_held.all():
        raise MLScaleError(
            f"the values do not fit {port.dtype}",
            where=port.name,
            why=f"they run from {raw.min():.6g} to {raw.max():.6g}, and {_describe_misfit(port)}",
            fix="pixels.astype('uint8'), of pixels as they are decoded, 0 to 255: the model normalises them itself"
            if port.dtype == "uint8"
            else f"values.astype('{port.dtype}'), of values that it holds",
        )
    return np.ascontiguousarray(cast)


def _describe_misfit(port: Port) -> str:
    if port.dtype == "float32":
        return f"float32 ends at {np.finfo(np.float32).max:.6g}"
    return f"are not all whole numbers of {port.dtype}"


def _build_shape_error(raw: NDArray[Any], port: Port) -> MLScaleError:
    wanted = "(n, " + ", ".join(map(str, port.shape[1:])) + ")"
    fix = f"raw.reshape(-1, {', '.join(map(str, port.shape[1:]))}), of values that come in this order"
    # The two frequent mistakes get their own advice.
    if raw.shape == port.shape[1:]:
        fix = "raw[None]: one sample is a batch of one"
    elif raw.ndim == 4 and (raw.shape[3], *raw.shape[1:3]) == port.shape[1:]:
        fix = "raw.transpose(0, 3, 1, 2): channels come first"
    elif raw.ndim == 3 and (raw.shape[2], *raw.shape[:2]) == port.shape[1:]:
        fix = "raw.transpose(2, 0, 1)[None]: channels come first, and one sample is a batch of one"
    return MLScaleError(f"the batch is {raw.shape}", where=port.name, why=f"the model takes {wanted}", fix=fix)
