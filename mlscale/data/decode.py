"""From the bytes of a member to an array of shape (channels, height, width).

Images of grey kinds (1 bit, 8 or 16 bits, with or without alpha) become one channel of uint8, all others three channels
of RGB; alpha is dropped, and of an animation the first frame is taken. Other members go through webdataset's own
handlers and must be arrays of two or three dimensions.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.picture import open_picture
from mlscale.data.resample import Box, Choose, cut, middle, resize
from mlscale.data.secure import IMAGE_EXTENSIONS, Decoder
from mlscale.errors import MLScaleError

Array = NDArray[Any]

PICKLED = frozenset({"pyd", "pkl", "pickle", "pth"})
_BASIC = Decoder([])


def is_image(extension: str) -> bool:
    """Is a member of this extension a picture?"""
    return extension.rsplit(".", 1)[-1] in _IMAGES


_IMAGES = frozenset(IMAGE_EXTENSIONS)


def check_extension(extension: str, *, allow: Collection[str], where: str) -> None:
    """Refuse members that run code when they are decoded, unless the user allows it.

    Raises:
        MLScaleError: the extension is one of pickle's, and 'pickle' is not allowed.
    """
    if extension.rsplit(".", 1)[-1] in PICKLED and "pickle" not in allow:
        raise MLScaleError(
            f"Members '.{extension}' are not decoded.",
            where=where,
            why="they are pickles, and a pickle runs whatever code its author put in",
            fix="data.allow=[pickle] if you wrote these shards yourself; else write .npy, .json or .cls members",
        )


def decode_value(content: bytes, extension: str) -> Any:
    """Decode a member that is no image, as webdataset does: cls, json, txt, npy, … Bytes where it has no handler.

    Pickles are decoded: whoever calls has asked `check_extension`.
    """
    last = extension.rsplit(".", 1)[-1]
    if last == "pth":
        import torch

        return torch.load(io.BytesIO(content), weights_only=False, map_location="cpu")
    if last in PICKLED:
        return pickle.loads(content)  # noqa: S301  allowed by name
    return _BASIC.decode1(extension, content)


def decode_image(
    content: bytes, size: tuple[int, int] | None, channels: int | None = None, choose: Choose = middle
) -> NDArray[np.uint8]:
    """Decode an image to uint8 of shape (channels, height, width).

    Args:
        content: the encoded image.
        size: height and width that it is brought to (bilinear, antialiased); None leaves it as it is.
        channels: 1 or 3; grey is repeated into 3. None takes what the image has.
        choose: the part that is brought to `size`.

    Raises:
        ValueError: a colour image where one channel is asked for, or a pixel type that is no picture.
        OSError: PIL cannot read it.
    """
    picture = open_picture(content)
    if channels == 1 and not picture.grey:
        raise ValueError("it has colours, and the training data is grey")
    channels = channels or (1 if picture.grey else 3)
    whole = (picture.height, picture.width)
    box = Box(0, 0, *whole) if size is None else choose(*whole, size)
    return cut(picture, channels, box, size or whole).transpose(2, 0, 1)


def decode_sample(
    content: bytes,
    extension: str,
    size: tuple[int, int] | None,
    channels: int | None = None,
    choose: Choose | None = None,
) -> Array:
    """Decode an image or an array member to uint8 or float32 of shape (channels, height, width).

    Args:
        content: the member.
        extension: its extension.
        size: see `decode_image`; arrays are brought to it where a part is chosen.
        channels: see `decode_image`; an array must have as many.
        choose: the part that is brought to `size`; None for the middle of an image, and the whole of an array.

    Raises:
        Exception: whatever a decoder raises; the caller adds shard and key.
    """
    if is_image(extension):
        return decode_image(content, size, channels, choose or middle)
    value = decode_value(content, extension)
    array = np.asarray(value)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uifb":
        raise ValueError(f"an array of 2 or 3 dimensions is needed, and this is {type(value).__name__} {array.shape}")
    if array.ndim == 2:
        array = array[None]
    if channels is not None and array.shape[0] != channels:
        raise ValueError(f"it has {array.shape[0]} channels, and the training data {channels}")
    if array.dtype != np.uint8:
        array = array.astype(np.float32)
    return array if choose is None or size is None else part_of(array, choose, size)


def part_of(array: Array, choose: Choose, size: tuple[int, int]) -> Array:
    """The chosen part of (channels, height, width), brought to `size`; a new array of the same dtype."""
    box = choose(array.shape[1], array.shape[2], size)
    return resize(array.transpose(1, 2, 0), box, size).transpose(2, 0, 1)
