"""Change constants of an ONNX model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def change_constants(content: bytes, change: Callable[[str, NDArray[Any]], NDArray[Any] | None]) -> bytes:
    """Return a model with other constants."""
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if (changed := change(tensor.name, value)) is not None:
            tensor.CopyFrom(numpy_helper.from_array(changed.astype(value.dtype), tensor.name))
    return bytes(model.SerializeToString())
