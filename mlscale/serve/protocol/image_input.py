"""Encoded pictures as a model takes them: decoded and brought to size as `preprocessing` of the servable says.

The decoder is that of training and of `predict`: the same bytes give the same pixels, or are rejected for the same
reason. It runs without torch. Pillow holds the interpreter's lock for parts of its work that grow with the picture, and
needs memory that no body shows, so that an image of many pixels is decoded in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.images.fast_decoder import open_picture
from mlscale.data.images.image_decoder import decode_image
from mlscale.data.images.pil import MAX_PIXELS, TooLarge
from mlscale.serve.http.request_error import Refused
from mlscale.serve.served_model import Model

KINDS = (b"image/jpeg", b"image/png", b"image/webp", b"image/bmp", b"image/gif", b"image/tiff")
"""Content types that are decoded; by what the body holds, whichever of them it is sent as."""
_FEW_PIXELS, _FEW_BYTES = 1 << 19, 4 << 20
"""Of an image that is decoded in a thread: the event loop waits for some milliseconds of it."""
_PIXEL_BYTES = 24
"""Of memory that a pixel takes while it is decoded, in all colours, and converted."""


def kind_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The content type, as it is compared."""
    return headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()


def is_large(content: bytes | bytearray) -> bool:
    """Whether an image has many pixels, by its header, or bytes; one that can't be read has no pixels."""
    if len(content) > _FEW_BYTES:  # a copy, and what is behind its header, would take long, too
        return True
    try:
        picture = open_picture(bytes(content), max_pixels=sys.maxsize)
    except Exception:  # Pillow raises what its decoders raise; `pixels` will tell
        return False
    return picture.height * picture.width > _FEW_PIXELS


def memory_bytes(model: Model) -> int:
    """How much memory decoding an image may take: the most pixels that the model takes, with all their colours."""
    return _max_pixels(model) * _PIXEL_BYTES


def _max_pixels(model: Model) -> int:
    return int(model.servable.document["preprocessing"].get("max_pixels") or MAX_PIXELS)


def pixels(model: Model, content: bytes, kind: bytes) -> NDArray[Any]:
    """One sample, (1, channels, height, width), of an image file.

    Raises:
        Refused: the model takes no images, it is corrupt, too large, or of another size than the model takes.
    """
    said = model.servable.document["preprocessing"]
    channels = {"grey": 1, "RGB": 3}.get(said["channels"])
    if said["layout"] != "NCHW" or channels is None or model.servable.input.dtype != "uint8":
        raise Refused(
            f"{model.name} takes no image files, but {model.servable.input.dtype} {list(model.sample_shape)}", 415
        )
    size = (model.sample_shape[1], model.sample_shape[2])
    try:
        decoded = decode_image(content, size if said["resize"] else None, channels, max_pixels=_max_pixels(model))
    except TooLarge as error:
        raise Refused(f"the image is too large: {error}", 413) from error
    except Exception as error:  # Pillow raises what its decoders raise
        raise Refused(f"this image can't be decoded: {' '.join(str(error).split())[:300]}") from error
    if decoded.shape[1:] != size:
        raise Refused(
            f"the image has {decoded.shape[1]}×{decoded.shape[2]} pixels (height × width), the model takes "
            f"{size[0]}×{size[1]}, and its servable.yaml names no way to resize"
        )
    return np.ascontiguousarray(decoded)[None]
