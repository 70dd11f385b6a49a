"""Samples out of JSON: nested lists of numbers, and nothing that takes far more memory than it has bytes."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.servable import accepted
from mlscale.serve.http.request_error import Refused
from mlscale.serve.served_model import Model

_DEEPEST = 16
_SHORT, _SOME = 16 << 10, 1024
"""Bytes of JSON that can't take much memory; signs of it besides those of samples."""


def check_expansion(model: Model, text: bytes | bytearray) -> None:
    """See that long JSON holds no more than a full batch may: `{},{},…` takes 25 times its length as objects.

    Raises:
        Refused: it does (413).
    """
    if len(text) <= _SHORT:
        return
    lists = sum(int(np.prod(model.sample_shape[:depth])) for depth in range(len(model.sample_shape)))
    samples = max(1, model.json_values // int(np.prod(model.sample_shape)))
    for sign, most in ((b",", model.json_values), (b"[", samples * lists), (b"{", 0), (b'"', 4 * samples)):
        if text.count(sign) > most + _SOME:
            raise Refused(f"a request in JSON has at most {samples} samples: send more as bytes", 413)


def numbers(model: Model, data: object) -> NDArray[Any]:
    """Samples out of JSON: nested lists, of a batch or of one sample.

    Raises:
        Refused: they are ragged, no numbers, of another shape, or do not fit the model's dtype.
    """
    array = array_of(model, data)
    return accept(model, array[None] if array.shape == model.sample_shape else array)


def array_of(model: Model, data: object) -> NDArray[Any]:
    """Nested lists of numbers. numpy would take texts for numbers, and one long text for the size of all.

    Raises:
        Refused: they are ragged, no numbers, or too large for any.
    """
    name = model.servable.input.name
    level: list[Any] = data if isinstance(data, list) else [data]
    shape: list[int] = []
    if isinstance(data, list):
        shape.append(len(data))
    while level and type(level[0]) is list:
        sizes = set(map(len, level)) if set(map(type, level)) == {list} else set()
        if len(sizes) != 1 or len(shape) >= _DEEPEST:
            raise Refused(f"the data of input '{name}' is ragged, or no list of numbers")
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
    kinds = set(map(type, level))
    if not kinds <= {int, float}:
        raise Refused(f"the data of input '{name}' is ragged, or no list of numbers")
    try:
        return np.array(level, np.float64 if float in kinds else np.int64).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise Refused(f"the data of input '{name}' has numbers that are too large") from error


def accept(model: Model, array: NDArray[Any]) -> NDArray[Any]:
    """Numbers as the model takes them.

    Raises:
        Refused: they are of another shape, or do not fit its dtype.
    """
    try:
        return accepted(array, model.servable.input)
    except MLScaleError as error:
        raise Refused(told(error)) from error


def told(error: MLScaleError) -> str:
    """An error as one sentence for a client."""
    return "; ".join(text for text in (error.what, error.why, error.fix) if text)
