"""Decodes image files into samples of a model, resized as `preprocessing` of the servable states.

The decoder is that of training and of `predict`: the same bytes give the same pixels, or are rejected for the same
reason. It runs without torch. Pillow holds the GIL for parts of its work that grow with the image, and needs memory
that the size of the body does not show, so an image of many pixels is decoded in a process of its own.
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
from mlscale.serve.served_model import ServedModel

KINDS = (b"image/jpeg", b"image/png", b"image/webp", b"image/bmp", b"image/gif", b"image/tiff")
"""Content types of images; the decoder goes by the content of the body, whichever of them is stated."""
_FEW_PIXELS, _FEW_BYTES = 1 << 19, 4 << 20
"""The largest image that is decoded in a thread: the event loop waits for some milliseconds of it."""
_PIXEL_BYTES = 24
"""Bytes of memory that a pixel takes while it is decoded, in all colours, and converted."""


def parse_content_type(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the content type in lower case, without parameters."""
    return headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()


def is_large(content: bytes | bytearray) -> bool:
    """Return whether an image has many bytes, or many pixels by its header; False if its header can't be read."""
    if len(content) > _FEW_BYTES:  # to copy it takes long, and so may what follows its header
        return True
    try:
        # The header only, without a limit: a size over the limit is reported by `decode_image_sample`, as for
        # small images.
        picture = open_picture(bytes(content), max_pixels=sys.maxsize)
    except Exception:  # Pillow raises what its decoders raise; `decode_image_sample` reports it
        return False
    return picture.height * picture.width > _FEW_PIXELS


def estimate_memory_bytes(model: ServedModel) -> int:
    """Return the bytes of memory that decoding may take, for the largest image that the model accepts."""
    return _get_max_pixels(model) * _PIXEL_BYTES


def _get_max_pixels(model: ServedModel) -> int:
    return int(model.servable.document["preprocessing"].get("max_pixels") or MAX_PIXELS)


def decode_image_sample(model: ServedModel, content: bytes, kind: bytes) -> NDArray[Any]:
    """Decode an image file into one sample, uint8 (1, channels, height, width).

    Raises:
        Refused: the model does not take images, or this one is corrupt, too large, or has another size.
    """
    preprocessing = model.servable.document["preprocessing"]
    channels = {"grey": 1, "RGB": 3}.get(preprocessing["channels"])
    # The decoder returns uint8 (channels, height, width); for any other input no conversion is defined.
    if preprocessing["layout"] != "NCHW" or channels is None or model.servable.input.dtype != "uint8":
        raise Refused(
            f"{model.name} takes no image files, but {model.servable.input.dtype} {list(model.sample_shape)}", 415
        )
    size = (model.sample_shape[1], model.sample_shape[2])
    try:
        decoded = decode_image(
            content, size if preprocessing["resize"] else None, channels, max_pixels=_get_max_pixels(model)
        )
    except TooLarge as error:
        raise Refused(f"the image is too large: {error}", 413) from error
    except Exception as error:  # Pillow raises what its decoders raise
        raise Refused(f"this image can't be decoded: {' '.join(str(error).split())[:300]}") from error
    # Without `resize` the model was trained on images of exactly this size, so another size is not guessed.
    if decoded.shape[1:] != size:
        raise Refused(
            f"the image has {decoded.shape[1]}×{decoded.shape[2]} pixels (height × width), the model takes "
            f"{size[0]}×{size[1]}, and its servable.yaml names no way to resize"
        )
    return np.ascontiguousarray(decoded)[None]
