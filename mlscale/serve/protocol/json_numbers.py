"""Reads samples from JSON: nested lists of numbers; refuses JSON that takes far more memory than its length."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.servable import cast_input
from mlscale.serve.http.request_error import Refused
from mlscale.serve.served_model import ServedModel

_DEEPEST = 16
_SHORT, _SOME = 16 << 10, 1024
"""Bytes of JSON that can't take much memory; delimiters that are allowed in addition to those of samples."""


def check_expansion(model: ServedModel, text: bytes | bytearray) -> None:
    """Raise if long JSON holds more than a full batch: `{},{},…` takes 25 times its length as Python objects.

    Raises:
        Refused: it holds more (413).
    """
    if len(text) <= _SHORT:
        return
    lists = sum(int(np.prod(model.sample_shape[:depth])) for depth in range(len(model.sample_shape)))
    samples = max(1, model.json_values // int(np.prod(model.sample_shape)))
    # Counted in the text, before parsing: afterwards the memory is already taken.
    for sign, most in ((b",", model.json_values), (b"[", samples * lists), (b"{", 0), (b'"', 4 * samples)):
        if text.count(sign) > most + _SOME:
            raise Refused(f"a request in JSON has at most {samples} samples: send more as bytes", 413)


def parse_samples(model: ServedModel, data: object) -> NDArray[Any]:
    """Return samples from nested lists, of a batch or of one sample.

    Raises:
        Refused: they are ragged, not numbers, of another shape, or do not fit the model's dtype.
    """
    array = parse_array(model, data)
    return cast_samples(model, array[None] if array.shape == model.sample_shape else array)


def parse_array(model: ServedModel, data: object) -> NDArray[Any]:
    """Return nested lists of numbers as an array, int64 or float64.

    Raises:
        Refused: they are ragged, not numbers, or too large.
    """
    name = model.servable.input.name
    # numpy alone would accept strings as numbers, and allocate for each element the size of the longest string.
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
    # `type`, since bool is a subclass of int, and true is not a number.
    kinds = set(map(type, level))
    if not kinds <= {int, float}:
        raise Refused(f"the data of input '{name}' is ragged, or no list of numbers")
    try:
        # int64 keeps large integers exact; as float64 they would be rounded above 2**53.
        return np.array(level, np.float64 if float in kinds else np.int64).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise Refused(f"the data of input '{name}' has numbers that are too large") from error


def cast_samples(model: ServedModel, array: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in the model's dtype and shape.

    Raises:
        Refused: they are of another shape, or do not fit its dtype.
    """
    try:
        return cast_input(array, model.servable.input)
    except MLScaleError as error:
        raise Refused(format_client_error(error)) from error


def format_client_error(error: MLScaleError) -> str:
    """Return an error as one sentence for a client."""
    return "; ".join(text for text in (error.what, error.why, error.fix) if text)
