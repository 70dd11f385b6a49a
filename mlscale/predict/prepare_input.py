"""Convert a stored input to a raw sample, as the encoder of a model takes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlscale.predict.input_items import InputItem

_ARRAYS = ("npy", "ten", "tb")


def prepare_sample(item: InputItem) -> Any:
    """Return the raw sample: the array of a file of arrays, else the content as it is stored.

    Raises:
        ValueError: the input could not be read; the message has the reason.
        Exception: any error of the decoder of an array.
    """
    if item.error:
        raise ValueError(item.error)
    if item.extension in _ARRAYS and isinstance(item.content, bytes):
        from mlscale.data.shards.member_decoder import decode_value

        # Of any shape: the encoder knows which one the model takes.
        return np.asarray(decode_value(item.content, item.extension))
    return item.content
