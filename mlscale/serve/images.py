"""Encoded pictures as a model takes them: decoded and brought to size as `preprocessing` of the servable says.

The middle square is cut out and resized as training does it, bilinear and antialiased; by Pillow instead of torch, so
that values may differ by a little. JPEG of the right size needs simplejpeg alone.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.serve.model import Model
from mlscale.serve.refused import Refused

KINDS = (b"image/jpeg", b"image/png")
_LARGEST = 64_000_000
"""Pixels: a few hundred bytes may unpack to more memory than there is."""
Size = tuple[int, int]
"""Height and width, in pixels."""


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def pixels(model: Model, content: bytes, kind: bytes) -> NDArray[Any]:
    """One sample, (1, channels, height, width), of an image file.

    Raises:
        Refused: the model takes no images, it is damaged, too large, or of another size than the model takes.
    """
    said = model.servable.document["preprocessing"]
    channels = {"grey": 1, "RGB": 3}.get(said["channels"])
    if said["layout"] != "NCHW" or channels is None or model.servable.input.dtype != "uint8":
        raise Refused(
            f"{model.name} takes no image files, but {model.servable.input.dtype} {list(model.sample_shape)}", 415
        )
    size = (model.sample_shape[1], model.sample_shape[2])
    decoded, whole = _jpeg(content, channels, size) if kind == KINDS[0] else _by_pillow(content, channels)
    if decoded.shape[:2] != size or whole != size:
        if said["resize"] is None:
            raise Refused(
                f"the image has {whole[0]}×{whole[1]} pixels (height × width), the model takes {size[0]}×{size[1]}, "
                "and its servable.yaml names no way to resize"
            )
        decoded = _resized(decoded, _middle(*whole, size), whole, size)
    return np.ascontiguousarray(decoded.transpose(2, 0, 1))[None]


def _jpeg(content: bytes, channels: int, size: Size) -> tuple[NDArray[np.uint8], Size]:
    """The pixels, and the picture's size: one that is to become half as large or less is decoded so, as in training."""
    try:
        import simplejpeg

        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if height * width > _LARGEST:
            raise Refused(f"the image has over {_LARGEST:,} pixels", 413)
        if colours not in ("Gray", "YCbCr", "RGB"):
            return _by_pillow(content, channels)
        box = _middle(height, width, size)
        shrink = next((f for f in (8, 4, 2) if box.height >= f * size[0] and box.width >= f * size[1]), 1)
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            content,
            "GRAY" if channels == 1 else "RGB",
            min_height=-(-height // shrink) if shrink > 1 else 0,
            min_width=-(-width // shrink) if shrink > 1 else 0,
            min_factor=shrink,
        )
    except ImportError:
        return _by_pillow(content, channels)
    except ValueError as error:
        raise Refused(f"this is no JPEG image, or a damaged one: {error}") from error
    return decoded, (height, width)


def _by_pillow(content: bytes, channels: int) -> tuple[NDArray[np.uint8], Size]:
    image = _pillow()
    try:
        with image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height > _LARGEST:
                raise Refused(f"the image has over {_LARGEST:,} pixels", 413)
            if opened.mode in ("I", "F"):
                raise Refused(
                    f"its pixels are of Pillow's type '{opened.mode}', neither grey nor colour of 8 or 16 bits"
                )
            picture = opened
            if opened.mode.startswith("I;16"):  # Pillow clips these when it converts them
                picture = image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
            decoded = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except Refused:
        raise
    except Exception as error:  # Pillow raises what its decoders raise
        raise Refused(f"this is no image, or a damaged one: {' '.join(str(error).split())[:200]}") from error
    size = (decoded.shape[0], decoded.shape[1])
    return decoded.reshape(*size, channels), size


def _middle(height: int, width: int, size: Size) -> Box:
    """The largest part in the middle that has the proportions of `size`."""
    if width * size[0] >= height * size[1]:
        part = max(1, round(height * size[1] / size[0]))
        return Box(0, (width - part) // 2, height, part)
    part = max(1, round(width * size[0] / size[1]))
    return Box((height - part) // 2, 0, part, width)


def _resized(decoded: NDArray[np.uint8], box: Box, whole: Size, size: Size) -> NDArray[np.uint8]:
    """The part in `box` of a picture of the size `whole`, which may have been decoded at half the size, or less."""
    shrink = next(f for f in (1, 2, 4, 8) if decoded.shape[0] >= whole[0] // f)
    if shrink > 1:
        height, width = box.height // shrink, box.width // shrink
        top = min(round(box.top / shrink), decoded.shape[0] - height)
        box = Box(top, min(round(box.left / shrink), decoded.shape[1] - width), height, width)
    part = np.ascontiguousarray(decoded[box.top : box.top + box.height, box.left : box.left + box.width])
    if part.shape[:2] == size:
        return part
    image = _pillow()
    picture = image.fromarray(part[..., 0] if part.shape[2] == 1 else part)
    resized = np.asarray(picture.resize((size[1], size[0]), image.Resampling.BILINEAR))
    return resized.reshape(*size, part.shape[2])


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise Refused(
            "this server decodes and resizes no such images: it lacks Pillow (pip install pillow)", 415
        ) from None
    return Image
