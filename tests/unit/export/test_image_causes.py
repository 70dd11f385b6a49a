"""Crops of an image are named, however their edges are rounded."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.decoding.resample import Box, resize_region
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.export.encoder_parity.difference import Cause
from mlscale.export.encoder_parity.image_causes import find_pixel_difference

Rounding = Callable[[float], int]


@pytest.mark.parametrize("start", [round, math.floor, math.ceil])
@pytest.mark.parametrize("extent", [round, math.floor, math.ceil])
def test_a_crop_is_named_with_every_rounding_of_its_edges(start: Rounding, extent: Rounding) -> None:
    rng = np.random.default_rng(7)
    encoder = ImageEncoder((3, 24, 24), "uint8", True, 10_000, (), (), 1)
    files, trained, exported = [], [], []
    for side in (30, 37, 43):
        # Noise, as nothing else depends so much on a single pixel.
        pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        box = Box(start(side / 16), start(side / 16), extent(side * 0.875), extent(side * 0.875))
        files.append(file.getvalue())
        trained.append(decode_image(files[-1], (24, 24), 3))
        exported.append(resize_region(pixels, box, (24, 24)).transpose(2, 0, 1))
    found = find_pixel_difference(encoder, np.stack(trained), np.stack(exported), files)
    assert found is not None
    assert found.cause is Cause.CROP
    assert found.detail.startswith("87.5% of the middle")
