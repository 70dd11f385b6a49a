"""Convert a stored input to the model's input."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from mlscale.encoders.encoder import INPUT, Encoder
from mlscale.predict.input_items import InputItem

_ARRAYS = ("npy", "ten", "tb")


def prepare_sample(item: InputItem, encoder: Encoder) -> NDArray[Any]:
    """Return one sample of the model's shape and dtype.

    Raises:
        ValueError: the input does not fit; the message has the reason.
        Exception: any error of the decoder of an array.
    """
    if item.error:
        raise ValueError(item.error)
    content = item.content
    if item.extension in _ARRAYS and isinstance(content, bytes):
        from mlscale.data.shards.member_decoder import decode_sample

        content = decode_sample(content, item.extension, None)
    return encoder.encode_sample(content)[INPUT]
