"""Servables of format 1: one input, one output of classes, and an encoder that follows from the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder


def build_format1_encoder(shape: tuple[int, ...], dtype: str, preprocessing: Mapping[str, Any]) -> Encoder:
    """Return the encoder of a servable of format 1, whose kind of input follows from its shape and dtype."""
    if len(shape) == 1 and dtype == "int64":
        return TextEncoder(shape[0])
    if len(shape) != 3:
        return TensorEncoder.from_shape(shape, dtype)
    from mlscale.data.decoding.fast_decoder import DECODE_VERSION
    from mlscale.data.decoding.pil import MAX_PIXELS

    return ImageEncoder(
        shape=(shape[0], shape[1], shape[2]),
        dtype=dtype,
        is_resized=bool(preprocessing.get("resize")),
        max_pixels=preprocessing.get("max_pixels") or MAX_PIXELS,
        # The graph normalises.
        mean=(),
        std=(),
        decode_version=DECODE_VERSION,
    )
