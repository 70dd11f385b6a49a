"""From an input as it is stored to what a model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.predict.input_items import Item


@dataclass(frozen=True)
class Takes:
    """What a model takes, raw.

    Attributes:
        shape: of one sample: (channels, height, width) of an image, (features,) of a row, (length,) of a text.
        dtype: uint8 or float32; int64 for a text as bytes + 1, 0 behind its end.
        resize: images are brought to the shape: the short side resized, the middle cut out; else they must have it.
        max_pixels: of an image as it is stored, before it is resized; None for the default.
        names: the columns of a table that `encode` takes.
        encode: rows of a table, keys and columns, as training has encoded them: float32 (n, features), and what is
            wrong with a row, by its place; None where inputs are taken one by one.
    """

    shape: tuple[int, ...]
    dtype: str
    resize: bool = False
    max_pixels: int | None = None
    names: tuple[str, ...] = ()
    encode: Callable[[Sequence[str], Mapping[str, Any]], tuple[NDArray[np.float32], Mapping[int, str]]] | None = None


def prepare(item: Item, takes: Takes) -> NDArray[Any]:
    """One sample of the model's shape and dtype.

    Raises:
        ValueError: it can't be made one; the message says why.
        Exception: whatever a decoder raises.
    """
    if item.error:
        raise ValueError(item.error)
    content = item.content
    if isinstance(content, np.ndarray):
        return _numbers(content, takes)
    if len(takes.shape) == 1 and takes.dtype == "int64":
        return _text(content, takes)
    if isinstance(content, str):
        raise ValueError("it is a text, and the model takes none")
    return _image(content, item.extension, takes)


def _image(content: bytes, extension: str, takes: Takes) -> NDArray[Any]:
    from mlscale.data.images.image_decoder import decode_image
    from mlscale.data.images.pil import MAX_PIXELS

    if len(takes.shape) != 3:
        raise ValueError(f"it is a file, and the model takes {takes.shape}")
    channels, height, width = takes.shape
    size = (height, width) if takes.resize else None
    if extension in ("npy", "ten", "tb"):
        from mlscale.data.shards.member_decoder import decode_sample

        array = decode_sample(content, extension, None, channels)
    else:
        array = decode_image(content, size, channels, max_pixels=takes.max_pixels or MAX_PIXELS)
    if array.shape != takes.shape:
        raise ValueError(f"it has {array.shape[2]}×{array.shape[1]} pixels, the model takes {width}×{height}")
    return array if array.dtype == takes.dtype else array.astype(takes.dtype)


def _numbers(values: NDArray[np.float64], takes: Takes) -> NDArray[Any]:
    if values.shape != takes.shape:
        raise ValueError(f"it has {len(values)} columns of numbers, the model takes {takes.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"column {int(np.flatnonzero(~np.isfinite(values))[0]) + 1} is no finite number")
    return values.astype(takes.dtype)


def _text(content: bytes | str, takes: Takes) -> NDArray[np.int64]:
    raw = content.encode("utf-8") if isinstance(content, str) else content
    if not raw:
        raise ValueError("it is empty")
    tokens = np.zeros(takes.shape, np.int64)
    cut = np.frombuffer(raw[: takes.shape[0]], np.uint8)
    tokens[: len(cut)] = cut.astype(np.int64) + 1
    return tokens
