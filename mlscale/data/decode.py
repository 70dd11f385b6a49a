"""From the bytes of a member to an array of shape (channels, height, width).

Images go through PIL: grey kinds (1 bit, 8 or 16 bits, with or without alpha) become one channel of uint8, all others
three channels of RGB; alpha is dropped, and of an animation the first frame is taken. Other members go through
webdataset's own handlers and must be arrays of two or three dimensions.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mlscale.data.secure import IMAGE_EXTENSIONS, Decoder
from mlscale.errors import MLScaleError

Array = NDArray[Any]

PICKLED = frozenset({"pyd", "pkl", "pickle", "pth"})
_GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})
_BASIC = Decoder([])
Image.preinit()  # The usual formats, once and in this thread: threads that decode must not do it together.


def is_image(extension: str) -> bool:
    """Does PIL read members of this extension?"""
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


def decode_image(content: bytes, size: int | None, channels: int | None = None) -> NDArray[np.uint8]:
    """Decode an image to uint8 of shape (channels, height, width).

    Args:
        content: the encoded image.
        size: pixels of the square it is brought to: the short side is resized (bilinear, antialiased) and the middle is
            cut out. None leaves it as it is.
        channels: 1 or 3; grey is repeated into 3. None takes what the image has.

    Raises:
        ValueError: a colour image where one channel is asked for, or a pixel type that is no picture.
        OSError: PIL cannot read it.
    """
    with Image.open(io.BytesIO(content)) as image:
        if image.mode in ("I", "F"):
            raise ValueError(f"its pixels are of PIL's type '{image.mode}', neither grey nor colour of 8 or 16 bits")
        grey = image.mode in _GREY
        if channels == 1 and not grey:
            raise ValueError("it has colours, and the training data is grey")
        mode = "L" if grey and channels != 3 else "RGB"
        picture = _to_mode(image, mode)
        if size is not None and picture.size != (size, size):
            picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture)
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):  # PIL clips these when it converts them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)


def decode_sample(content: bytes, extension: str, size: int | None, channels: int | None = None) -> Array:
    """Decode an image or an array member to uint8 or float32 of shape (channels, height, width).

    Raises:
        Exception: whatever PIL or webdataset's handlers raise; the caller adds shard and key.
    """
    if is_image(extension):
        return decode_image(content, size, channels)
    value = decode_value(content, extension)
    array = np.asarray(value)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uifb":
        raise ValueError(f"an array of 2 or 3 dimensions is needed, and this is {type(value).__name__} {array.shape}")
    if array.ndim == 2:
        array = array[None]
    if channels is not None and array.shape[0] != channels:
        raise ValueError(f"it has {array.shape[0]} channels, and the training data {channels}")
    return array if array.dtype == np.uint8 else array.astype(np.float32)
