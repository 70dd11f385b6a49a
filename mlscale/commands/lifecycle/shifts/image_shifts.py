"""Changes of images: a scanner that gives negatives, a camera mounted sideways, a lens out of focus."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.commands.lifecycle.shifts.shift import Shift
from mlscale.data.encoders.image_encoder import ImageEncoder

Pixels = NDArray[Any]
"""An image, (channels, height, width)."""
_BLURS = (0.1, 0.2, 0.4)
"""Standard deviations of a blur, as shares of the shorter side."""


def list_image_shifts(name: str, encoder: ImageEncoder) -> list[list[Shift]]:
    """Return the changes of images of this name, the mildest first, each in a group of its own."""
    if name == "invert":
        return [[_build_shift(name, "pixels are inverted", _invert_pixels, encoder)]]
    if name == "turn":
        return [[_build_shift(name, "images are turned by 90°", _rotate_pixels, encoder)]]
    return [
        [
            _build_shift(
                name,
                f"images are blurred by {share:.0%} of their shorter side",
                partial(_apply_blur, share=share),
                encoder,
            )
        ]
        for share in _BLURS
    ]


def _build_shift(name: str, description: str, change: Callable[[Pixels], Pixels], encoder: ImageEncoder) -> Shift:
    return Shift(name, description, partial(_change_image, change=change, encoder=encoder))


def _change_image(raw: bytes | Pixels, change: Callable[[Pixels], Pixels], encoder: ImageEncoder) -> bytes | Pixels:
    """Return an image after a change: a file as another file of its own size, an array as an array."""
    if not isinstance(raw, bytes):
        return np.ascontiguousarray(change(raw))
    from mlscale.data.decoding.image_decoder import decode_image

    # At its own size, not the model's: size and sharpness must not show that the tour has resized it.
    pixels = decode_image(raw, None, encoder.shape[0], max_pixels=encoder.max_pixels)
    return _encode_png(np.ascontiguousarray(change(pixels)))


def _encode_png(pixels: Pixels) -> bytes:
    """Return uint8 pixels of one channel, or of three, as a PNG: without losses of its own."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def _invert_pixels(pixels: Pixels) -> Pixels:
    # Other dtypes have no fixed range: the largest value counts as white.
    top = 255 if pixels.dtype == np.uint8 else pixels.max()
    return np.asarray(top - pixels, pixels.dtype)


def _rotate_pixels(pixels: Pixels) -> Pixels:
    return np.rot90(pixels, axes=(1, 2))


def _apply_blur(pixels: Pixels, share: float) -> Pixels:
    """Return an image after a Gaussian blur, whose edges are repeated."""
    sigma = share * min(pixels.shape[1:])
    reach = max(1, round(3 * sigma))
    # Three standard deviations hold 99.7 % of the weight.
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    blurred = pixels.astype(np.float64)
    # The two axes one after the other: the kernel is a product.
    for axis in (1, 2):
        blurred = _apply_kernel(blurred, kernel, axis)
    return np.asarray(np.rint(blurred) if pixels.dtype.kind in "iu" else blurred, pixels.dtype)


def _apply_kernel(values: NDArray[np.float64], kernel: Sequence[float] | NDArray[np.float64], axis: int) -> Any:
    reach = len(kernel) // 2
    width = [(reach, reach) if number == axis else (0, 0) for number in range(values.ndim)]
    padded = np.pad(values, width, mode="edge")
    size = values.shape[axis]
    parts = (weight * padded.take(range(at, at + size), axis) for at, weight in enumerate(kernel))
    return sum(parts)
