"""Decoding of a member's bytes to an array of shape (channels, height, width).

Images are decoded by `decode_image`. Other members go through webdataset's own handlers and must be arrays of two or
three dimensions.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.image_decoder import Report, decode_image
from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.decoding.resample import ChooseBox, find_middle_box, resize_region
from mlscale.errors import MLScaleError

Array = NDArray[Any]

PICKLED = frozenset({"pyd", "pkl", "pickle", "pth"})


def check_extension(extension: str, *, allow: Collection[str], where: str) -> None:
    """Refuse members that run code when they are decoded, unless the user allows it.

    Raises:
        MLScaleError: the extension is one of pickle's, and 'pickle' is not allowed.
    """
    if extension.rsplit(".", 1)[-1] in PICKLED and "pickle" not in allow:
        raise MLScaleError(
            f"members '.{extension}' are not decoded",
            where=where,
            why="they are pickles, and a pickle runs whatever code its author put in",
            fix="data.allow=[pickle], if you wrote these shards yourself: else write .npy, .json or .cls members",
        )


def decode_value(content: bytes, extension: str) -> Any:
    """Decode a member that is not an image, as webdataset does: cls, json, txt, npy, … Bytes where it has no handler.

    Pickles are decoded: callers must have called `check_extension` before.
    """
    last = extension.rsplit(".", 1)[-1]
    if last == "pth":
        # Imported on use: all other members are decoded without torch.
        import torch

        return torch.load(io.BytesIO(content), weights_only=False, map_location="cpu")
    if last in PICKLED:
        return pickle.loads(content)  # noqa: S301  allowed by name
    # Imported on use: most members are images and classes, which need no webdataset.
    from mlscale.data.shards.secure_webdataset import Decoder

    # No handlers besides those that webdataset adds itself.
    return Decoder([]).decode1(extension, content)


def decode_sample(
    content: bytes,
    extension: str,
    size: tuple[int, int] | None,
    channels: int | None = None,
    choose: ChooseBox | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    report: Report | None = None,
) -> Array:
    """Decode an image or an array member to uint8 or float32 of shape (channels, height, width).

    Args:
        content: the member.
        extension: its extension.
        size: see `decode_image`; arrays are brought to it where a part is chosen.
        channels: see `decode_image`; an array must have as many.
        choose: the part that is brought to `size`; None for the middle of an image, and the whole of an array.
        max_pixels: see `decode_image`.
        report: see `decode_image`.

    Raises:
        Exception: whatever a decoder raises; the caller adds shard and key.
    """
    if is_image_file(extension):
        return decode_image(content, size, channels, choose or find_middle_box, max_pixels=max_pixels, report=report)
    value = decode_value(content, extension)
    array = np.asarray(value)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uifb":
        raise ValueError(f"an array of 2 or 3 dimensions is needed, and this is {type(value).__name__} {array.shape}")
    if array.ndim == 2:
        array = array[None]
    if channels is not None and array.shape[0] != channels:
        raise ValueError(f"it has {array.shape[0]} channels, and the training data {channels}")
    # uint8 stays as it is, since it takes a quarter of the memory; all others become what a model takes.
    if array.dtype != np.uint8:
        array = array.astype(np.float32)
    return array if choose is None or size is None else resize_array(array, choose, size)


def resize_array(array: Array, choose: ChooseBox, size: tuple[int, int]) -> Array:
    """Return the chosen part of (channels, height, width), resized to `size`; a new array of the same dtype."""
    box = choose(array.shape[1], array.shape[2], size)
    return resize_region(array.transpose(1, 2, 0), box, size).transpose(2, 0, 1)
