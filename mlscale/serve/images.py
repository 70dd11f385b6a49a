"""Encoded pictures as a model takes them: decoded and brought to size as `preprocessing` of the servable says.

The middle square is cut out and resized as training does it, bilinear and antialiased; by Pillow instead of torch, so
that values may differ by a little. JPEG of the right size needs simplejpeg alone.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.serve.model import Model
from mlscale.serve.refused import Refused

KINDS = (b"image/jpeg", b"image/png")
_LARGEST = 64_000_000
"""Pixels: a few hundred bytes may unpack to more memory than there is."""


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
    decoded = _jpeg(content, channels) if kind == KINDS[0] else _by_pillow(content, channels)
    if decoded.shape[:2] != size:
        if said["resize"] is None:
            raise Refused(
                f"the image has {decoded.shape[0]}×{decoded.shape[1]} pixels (height × width), the model takes "
                f"{size[0]}×{size[1]}, and its servable.yaml names no way to resize"
            )
        decoded = _resized(decoded, size)
    return np.ascontiguousarray(decoded.transpose(2, 0, 1))[None]


def _jpeg(content: bytes, channels: int) -> NDArray[np.uint8]:
    try:
        import simplejpeg

        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if height * width > _LARGEST:
            raise Refused(f"the image has over {_LARGEST:,} pixels", 413)
        if colours not in ("Gray", "YCbCr", "RGB"):
            return _by_pillow(content, channels)
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "GRAY" if channels == 1 else "RGB")
    except ImportError:
        return _by_pillow(content, channels)
    except ValueError as error:
        raise Refused(f"this is no JPEG image, or a damaged one: {error}") from error
    return decoded


def _by_pillow(content: bytes, channels: int) -> NDArray[np.uint8]:
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
    return decoded.reshape(*decoded.shape[:2], channels)


def _resized(decoded: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The largest part in the middle with the proportions of `size`, (height, width), brought to it."""
    image = _pillow()
    height, width = decoded.shape[:2]
    if width * size[0] >= height * size[1]:
        part = max(1, round(height * size[1] / size[0]))
        box = ((width - part) // 2, 0, (width - part) // 2 + part, height)
    else:
        part = max(1, round(width * size[0] / size[1]))
        box = (0, (height - part) // 2, width, (height - part) // 2 + part)
    picture = image.fromarray(decoded[..., 0] if decoded.shape[2] == 1 else decoded)
    resized = np.asarray(picture.resize((size[1], size[0]), image.Resampling.BILINEAR, box=box))
    return resized.reshape(*size, decoded.shape[2])


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise Refused(
            "this server decodes and resizes no such images: it lacks Pillow (pip install pillow)", 415
        ) from None
    return Image
