"""Decoding of image files to the arrays that a model takes, for training, `predict` and `serve` alike.

Images of grey kinds (1 bit, 8 or 16 bits, with or without alpha) become one channel of uint8, all others three channels
of RGB; alpha is dropped, and of an animation the first frame is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.fast_decoder import open_picture
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.decoding.resample import Box, ChooseBox, find_middle_box, resize_region

Report = Callable[[str], None]
"""Called with what a strict decoder warned of, where that was found harmless and the image was decoded."""


def decode_image(
    content: bytes,
    size: tuple[int, int] | None,
    channels: int | None = None,
    choose: ChooseBox = find_middle_box,
    *,
    max_pixels: int = MAX_PIXELS,
    report: Report | None = None,
) -> NDArray[np.uint8]:
    """Decode an image to uint8 of shape (channels, height, width).

    Args:
        content: the encoded image.
        size: height and width that it is brought to (bilinear, antialiased); None leaves it as it is.
        channels: 1 or 3; grey is repeated into 3. None takes what the image has.
        choose: the part that is brought to `size`.
        max_pixels: larger images are refused before they are decoded.
        report: see `Report`.

    Raises:
        ValueError: it is corrupt or too large, a colour image where one channel is asked for, or its pixels are of a
            type without a known range.
        OSError: Pillow can't read it.
    """
    picture = open_picture(content, max_pixels=max_pixels)
    # Not converted: an image of another kind than the training data is reported. Of WebP and GIF, which have no grey of
    # their own, the pixels decide.
    if channels == 1 and not picture.grey:
        pixels = picture.decode_pixels(3) if content[:4] in (b"RIFF", b"GIF8") else None
        if pixels is None or (pixels != pixels[..., :1]).any():
            raise ValueError("it has colours, and the training data is grey")
    channels = channels or (1 if picture.grey else 3)
    whole = (picture.height, picture.width)
    box = Box(0, 0, *whole) if size is None else choose(*whole, size)
    pixels = resize_region(picture.decode_pixels(channels), box, size or whole).transpose(2, 0, 1)
    if picture.tolerated and report is not None:
        report(picture.tolerated)
    return pixels
