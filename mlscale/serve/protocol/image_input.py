"""Decodes image files into samples of a model, resized as `preprocessing` of the servable states.

The decoder is that of training and of `predict`: the same bytes give the same pixels, or are rejected for the same
reason. It runs without torch. Pillow holds the GIL for parts of its work that grow with the image, and needs memory
that the size of the body does not show, so an image of many pixels is decoded in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.fast_decoder import open_picture
from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.decoding.image_files import IMAGE_FORMATS
from mlscale.data.decoding.pil import TooLarge
from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.data.encoders.image_encoder import ImageEncoder, measure_image_sizes
from mlscale.serve.http.request_error import Refused
from mlscale.serve.served_model import ServedModel

KINDS = tuple(name.encode() for format_ in IMAGE_FORMATS for name in format_.content_types)
"""Content types of each format that training reads; the decoder goes by the body's content, whichever is stated."""
RAW_FORMS = {
    "table": 'rows, such as {"<column>": <value>, …}',
    "image": "images, such as image/jpeg",
    "text": "texts, such as text/plain",
    "document": "texts, such as text/plain",
    "tensor": 'numbers, such as {"inputs": [sample, …]}',
}
"""What a model takes, by the kind of its encoder."""
IMAGE_ADVICE = "curl -H 'Content-Type: {}' --data-binary @{} <this address>"
FILE_ADVICE = IMAGE_ADVICE.format("image/jpeg", "photo.jpeg")
"""The line that sends an image file."""
_FEW_PIXELS, _FEW_BYTES = 1 << 19, 4 << 20
"""The largest image that is decoded in a thread: the event loop waits for some milliseconds of it."""
_PIXEL_BYTES = 24
"""Bytes of memory that a pixel takes while it is decoded, in all colours, and converted."""


def parse_content_type(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the content type in lower case, without parameters."""
    return headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()


def is_large(model: ServedModel, content: bytes | bytearray | Sequence[bytes]) -> bool:
    """Return whether an image has many bytes, or many pixels by its header; False if its header can't be read.

    Of a list of images: whether there are several, or a large one.

    Raises:
        Refused: an image has more pixels than the model takes, before it waits for those that are decoded.
    """
    if not isinstance(content, bytes | bytearray):
        return len(content) > 1 or is_large(model, content[0])
    if len(content) > _FEW_BYTES:  # to copy it takes long, and so may what follows its header
        return True
    try:
        picture = open_picture(bytes(content), max_pixels=_get_image_encoder(model).max_pixels)
    except TooLarge as error:
        raise _build_size_refusal(error) from error
    except Exception:  # Pillow raises what its decoders raise; `decode_image_sample` reports it
        return False
    return picture.height * picture.width > _FEW_PIXELS


def _build_size_refusal(error: TooLarge) -> Refused:
    return Refused(f"the image is too large: {error}", 413)


def estimate_memory_bytes(model: ServedModel) -> int:
    """Return the bytes of memory that decoding may take, for the largest image that the model accepts."""
    encoder = model.servable.encoder
    return (encoder.max_pixels if isinstance(encoder, ImageEncoder) else 0) * _PIXEL_BYTES


def decode_image_samples(model: ServedModel, contents: Sequence[bytes]) -> EncodedSamples:
    """Decode image files into samples.

    Raises:
        Refused: see `decode_image_sample`; the reason of the first of them.
    """
    parts = []
    for number, content in enumerate(contents):
        try:
            parts.append(decode_image_sample(model, content))
        except Refused as refused:
            if len(contents) == 1:
                raise
            raise Refused(f"sample {number}: {refused.message}", refused.status) from refused
    pixels = {model.servable.inputs[0].name: np.concatenate(parts)}
    return EncodedSamples(pixels, {}, facts=measure_image_sizes(contents))


def decode_image_sample(model: ServedModel, content: bytes) -> NDArray[Any]:
    """Decode an image file into one sample, (1, channels, height, width).

    Raises:
        Refused: the model does not take images, or this one is corrupt, too large, or has another size.
    """
    encoder = _get_image_encoder(model)
    if not content:
        raise Refused(f"this image can't be decoded: it is empty; send the bytes of a file, {FILE_ADVICE}")
    channels, *size = encoder.shape
    try:
        decoded = decode_image(
            content, (size[0], size[1]) if encoder.is_resized else None, channels, max_pixels=encoder.max_pixels
        )
    except TooLarge as error:
        raise _build_size_refusal(error) from error
    except Exception as error:  # Pillow raises what its decoders raise
        raise Refused(f"this image can't be decoded: {' '.join(str(error).split())[:300]}") from error
    # Without a resize the model was trained on images of exactly this size, so another size is not guessed.
    if decoded.shape[1:] != tuple(size):
        raise Refused(
            f"the image has {decoded.shape[1]}×{decoded.shape[2]} pixels (height × width), the model takes "
            f"{size[0]}×{size[1]}, and its servable.yaml names no way to resize"
        )
    return np.ascontiguousarray(decoded.astype(encoder.dtype, copy=False))[None]


def _get_image_encoder(model: ServedModel) -> ImageEncoder:
    """Return the encoder of a model of images.

    Raises:
        Refused: the model takes something else (415).
    """
    servable = model.servable
    encoder = servable.encoder
    known = isinstance(encoder, ImageEncoder) and encoder.shape[0] in (1, 3)
    if known and servable.format == 1:
        # Its encoder follows from the shape of the input alone.
        preprocessing = servable.document["preprocessing"]
        stated = preprocessing["layout"] == "NCHW" and preprocessing["channels"] in ("grey", "RGB")
        known = stated and servable.input.dtype == "uint8"
    if known:
        return cast(ImageEncoder, encoder)
    if servable.format > 1 and encoder.kind != "tensor":
        raise Refused(f"{model.name} takes no image files, but {RAW_FORMS[encoder.kind]}", 415)
    taken = f"{servable.input.dtype} {list(servable.input.shape[1:])}"
    raise Refused(
        f"{model.name} takes no image files, but {taken}: send the bytes of what its data gave in training, "
        "curl -H 'Content-Type: application/octet-stream' --data-binary @sample.raw <this address>, "
        'or {"inputs": [sample]} as JSON',
        415,
    )
