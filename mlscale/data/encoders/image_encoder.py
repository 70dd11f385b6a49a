"""The encoder of images: decoding, orientation, resize and crop to the pixels that a graph takes."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mlscale.array_files import load_arrays
from mlscale.data.encoders.encoder import INPUT, EncodedSamples, Encoder, TensorSpec, convert_values, name_kind

_NPY = b"\x93NUMPY"


@dataclass(frozen=True)
class ImageEncoder(Encoder):
    """An image as its upright pixels, (channels, height, width); the graph normalises them.

    Args:
        shape: channels, height and width of a sample.
        dtype: uint8; float32 of arrays that were stored as such.
        is_resized: the short side is resized and the middle cut out (bilinear, antialiased); else images must have
            the shape.
        max_pixels: of a stored image; larger ones are refused before they are decoded.
        mean: of each channel, subtracted inside the graph; empty for none.
        std: of each channel, divided by after that.
        decode_version: of the decoder.
    """

    kind: ClassVar[str] = "image"
    graph_start: ClassVar[str] = "pixels"
    fact_names: ClassVar[tuple[str, ...]] = ("width", "height")
    shape: tuple[int, int, int]
    dtype: str
    is_resized: bool
    max_pixels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decode_version: int

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(INPUT, self.dtype, self.shape),)

    def describe_raw_input(self) -> dict[str, Any]:
        channels, height, width = self.shape
        colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
        size: dict[str, Any] = {"height": height, "width": width, "any_size": self.is_resized}
        return {"type": "image", "colours": colours, **size, "max_pixels": self.max_pixels}

    def describe_settings(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "resize": "short side, centre crop" if self.is_resized else None,
            "max_pixels": self.max_pixels,
            "mean": list(self.mean),
            "std": list(self.std),
            "decode_version": self.decode_version,
        }

    @classmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Self:
        # Imported late: encoders need numpy alone, and the decoder more.
        from mlscale.data.decoding.fast_decoder import DECODE_VERSION

        # Another version gives other pixels: answers would change without a sign of it.
        if settings["decode_version"] != DECODE_VERSION:
            raise ValueError(f"decoder version {settings['decode_version']}, and this mlscale has {DECODE_VERSION}")
        channels, height, width = (int(size) for size in settings["shape"])
        return cls(
            shape=(channels, height, width),
            dtype=np.dtype(settings["dtype"]).name,
            is_resized=settings["resize"] is not None,
            max_pixels=int(settings["max_pixels"]),
            mean=tuple(map(float, settings["mean"])),
            std=tuple(map(float, settings["std"])),
            decode_version=int(settings["decode_version"]),
        )

    def encode_sample(self, raw: bytes | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the pixels of an image file, of a file of numpy's (.npy), or of an array of the shape."""
        try:
            pixels = self._decode_pixels(raw)
        except ValueError:
            raise
        except Exception as error:  # Pillow raises what its decoders raise
            raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error
        if pixels.shape != self.shape:
            raise ValueError(_describe_other_shape(pixels.shape, self.shape))
        return {INPUT: pixels}

    def pack_samples(self, raw: Sequence[bytes | NDArray[Any]]) -> EncodedSamples:
        """Return the pixels of images, and the width and height that each was sent with."""
        return self.encode_samples(raw)._replace(facts=measure_image_sizes(raw))

    def _decode_pixels(self, raw: bytes | NDArray[Any]) -> NDArray[Any]:
        from mlscale.data.decoding.image_decoder import decode_image

        if isinstance(raw, np.ndarray):
            return self._convert_array(raw)
        if not isinstance(raw, bytes):
            raise ValueError(f"it is {name_kind(raw)}, and the model takes images")
        if raw.startswith(_NPY):
            return self._convert_array(load_arrays(raw))
        channels, height, width = self.shape
        pixels = decode_image(raw, (height, width) if self.is_resized else None, channels, max_pixels=self.max_pixels)
        return pixels.astype(self.dtype, copy=False)

    def _convert_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array as it is: it can't be resized without knowing what its values mean."""
        return convert_values(array[None] if array.ndim == 2 else array, self.dtype)


def measure_image_sizes(raw: Sequence[object]) -> dict[str, NDArray[np.float64]]:
    """Return `width` and `height` of images by their headers, float64 (n,); NaN of one that can't be read."""
    sizes = np.array([_measure_image(image) for image in raw], np.float64).reshape(-1, 2)
    return {"width": sizes[:, 0], "height": sizes[:, 1]}


def _measure_image(raw: object) -> tuple[float, float]:
    from mlscale.data.decoding.fast_decoder import open_picture

    if isinstance(raw, np.ndarray) and raw.ndim >= 2:
        return raw.shape[-1], raw.shape[-2]
    if not isinstance(raw, bytes) or raw.startswith(_NPY):  # arrays have the size that the model takes
        return math.nan, math.nan
    try:
        picture = open_picture(raw, max_pixels=sys.maxsize)
    except Exception:  # Pillow raises what its decoders raise, and decoding reports it
        return math.nan, math.nan
    return picture.width, picture.height


def _describe_other_shape(given: tuple[int, ...], taken: tuple[int, int, int]) -> str:
    if len(given) != 3:
        return f"it has the shape {given}, and the model takes {taken}"
    if given[0] != taken[0]:
        return f"it has {given[0]} channels, the model takes {taken[0]}"
    return f"it has {given[2]}×{given[1]} pixels, the model takes {taken[2]}×{taken[1]}"
