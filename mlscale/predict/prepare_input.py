"""Convert a stored input to the model's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.predict.input_items import InputItem


@dataclass(frozen=True)
class InputFormat:
    """The format of a model's raw input.

    Attributes:
        shape: of one sample: (channels, height, width) of an image, (features,) of a row, (length,) of a text.
        dtype: uint8 or float32; int64 for a text as bytes + 1, padded with 0.
        resize: true if images are brought to the shape (short side resized, centre crop); else they must have it.
        max_pixels: limit of a stored image, before it is resized; None for the default.
        names: the columns of a table that `encode` takes.
        encode: encodes rows of a table, keys and columns, as in training: float32 (n, features), and the error of a
            row, by its index; None if inputs are prepared one by one.
    """

    shape: tuple[int, ...]
    dtype: str
    resize: bool = False
    max_pixels: int | None = None
    names: tuple[str, ...] = ()
    encode: Callable[[Sequence[str], Mapping[str, Any]], tuple[NDArray[np.float32], Mapping[int, str]]] | None = None


def prepare_sample(item: InputItem, takes: InputFormat) -> NDArray[Any]:
    """Return one sample of the model's shape and dtype.

    Raises:
        ValueError: the input does not fit; the message has the reason.
        Exception: any error of a decoder.
    """
    if item.error:
        raise ValueError(item.error)
    content = item.content
    if isinstance(content, np.ndarray):
        return _prepare_numbers(content, takes)
    if len(takes.shape) == 1 and takes.dtype == "int64":
        return _prepare_text(content, takes)
    if isinstance(content, str):
        raise ValueError("it is a text, and the model takes none")
    return _prepare_image(content, item.extension, takes)


def _prepare_image(content: bytes, extension: str, takes: InputFormat) -> NDArray[Any]:
    from mlscale.data.images.image_decoder import decode_image
    from mlscale.data.images.pil import MAX_PIXELS

    if len(takes.shape) != 3:
        raise ValueError(f"it is a file, and the model takes {takes.shape}")
    channels, height, width = takes.shape
    size = (height, width) if takes.resize else None
    # Arrays are taken as they are: they can't be resized without knowing what their values mean.
    if extension in ("npy", "ten", "tb"):
        from mlscale.data.shards.member_decoder import decode_sample

        array = decode_sample(content, extension, None, channels)
    else:
        array = decode_image(content, size, channels, max_pixels=takes.max_pixels or MAX_PIXELS)
    if array.shape != takes.shape:
        raise ValueError(f"it has {array.shape[2]}×{array.shape[1]} pixels, the model takes {width}×{height}")
    return array if array.dtype == takes.dtype else array.astype(takes.dtype)


def _prepare_numbers(values: NDArray[np.float64], takes: InputFormat) -> NDArray[Any]:
    if values.shape != takes.shape:
        raise ValueError(f"it has {len(values)} columns of numbers, the model takes {takes.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"column {int(np.flatnonzero(~np.isfinite(values))[0]) + 1} is not a finite number")
    return values.astype(takes.dtype)


def _prepare_text(content: bytes | str, takes: InputFormat) -> NDArray[np.int64]:
    raw = content.encode("utf-8") if isinstance(content, str) else content
    if not raw:
        raise ValueError("it is empty")
    # As in training (data/text): byte + 1, cut to the model's length; 0 is padding.
    tokens = np.zeros(takes.shape, np.int64)
    cut = np.frombuffer(raw[: takes.shape[0]], np.uint8)
    tokens[: len(cut)] = cut.astype(np.int64) + 1
    return tokens
