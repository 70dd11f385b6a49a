"""Re-encode images before they are written: upright, their short side resized, in one format; masks without loss."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlscale.data.decoding.fast_decoder import UPRIGHT, Pixels, open_picture
from mlscale.data.decoding.image_files import find_image_format
from mlscale.data.decoding.resample import Box, resize_region
from mlscale.data.images.masks import Mask, decode_mask, resize_nearest
from mlscale.errors import MLScaleError

WHERE = "reencode"
_EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Of the formats, that of members and files: the first of `IMAGE_FORMATS`."""
_QUALITY = 90
_LOSSLESS = "png"


class EncodedImage(NamedTuple):
    """An image as it is written.

    Attributes:
        extension: of its format.
        content: the file.
        whole: height and width of the stored image, upright.
        size: the same of the written one.
    """

    extension: str
    content: bytes
    whole: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Reencoding:
    """how images are re-encoded.

    Args:
        size: pixels of the short side; smaller images are not enlarged. None leaves every size as it is.
        format: jpeg, png or webp.
        quality: of jpeg and webp, 1 to 100; None of png, which has no loss.
    """

    size: int | None
    format: str
    quality: int | None

    def describe(self) -> dict[str, Any]:
        """Return all that decides which bytes an image becomes, for `dataset.json`."""
        # Another version of an encoder may write other bytes: shards of one data set are by one of them.
        encoder = ("simplejpeg",) if self.format == "jpeg" else ("pillow",)
        names = ", ".join(f"{name} {version(name)}" for name in encoder)
        return {"size": self.size, "format": self.format, "quality": self.quality, "encoder": names}

    def encode_image(self, content: bytes, max_pixels: int) -> EncodedImage:
        """Return an image re-encoded; as it is stored, where that has the format and the size already.

        Args:
            content: the stored file.
            max_pixels: see `open_picture`.

        Raises:
            Exception: whatever a decoder or an encoder raises.
        """
        picture = open_picture(content, max_pixels=max_pixels)
        whole = (picture.height, picture.width)
        size = self._choose_size(whole)
        # Decoded in any case: a corrupt image is not copied.
        pixels = resize_region(picture.decode_pixels(1 if picture.grey else 3), Box(0, 0, *whole), size)
        stored = find_image_format(content)
        extension = _EXTENSIONS[self.format]
        is_same = stored is not None and stored.extensions[0] == extension and size == whole
        # What is there already would only lose by being encoded again.
        if is_same and picture.orientation == UPRIGHT and not picture.tolerated:
            return EncodedImage(extension, content, whole, whole)
        return EncodedImage(extension, self._encode_pixels(np.ascontiguousarray(pixels)), whole, size)

    def encode_mask(self, content: bytes, extension: str, image: EncodedImage, max_pixels: int) -> bytes:
        """Return the mask of an image as a PNG of the size of the image; by the nearest pixels, which adds no class.

        Args:
            content, extension: of the stored mask.
            image: as it is written.
            max_pixels: see `decode_mask`.

        Raises:
            ValueError: it has another size than its image.
            Exception: whatever a decoder raises.
        """
        mask = decode_mask(content, extension, max_pixels=max_pixels)
        if mask.shape != image.whole:
            raise ValueError(
                f"it has {mask.shape[1]}×{mask.shape[0]} pixels, and its image {image.whole[1]}×{image.whole[0]}"
            )
        if image.size == image.whole and extension.rpartition(".")[2].lower() == _LOSSLESS:
            return content
        resized = mask if image.size == image.whole else resize_nearest(mask, Box(0, 0, *image.whole), image.size)
        return _write_picture(resized, "PNG")

    def _choose_size(self, whole: tuple[int, int]) -> tuple[int, int]:
        short = min(whole)
        if self.size is None or short <= self.size:
            return whole
        # In whole numbers, so that no machine rounds differently.
        height, width = ((side * self.size + short // 2) // short for side in whole)
        return height, width

    def _encode_pixels(self, pixels: Pixels) -> bytes:
        if self.format == "jpeg":
            import simplejpeg

            space, sampling = ("GRAY", "Gray") if pixels.shape[2] == 1 else ("RGB", "420")
            # The exact transform: the fast one is a little quicker and worse.
            content: bytes = simplejpeg.encode_jpeg(pixels, self.quality, space, sampling, fastdct=False)
            return content
        array = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        options = {} if self.quality is None else {"quality": self.quality}
        return _write_picture(array, self.format.upper(), **options)


def parse_reencoding(settings: Mapping[str, Any] | None) -> Reencoding | None:
    """Return what `reencode` of a configuration asks for; None where images stay as they are.

    Args:
        settings: size, format and quality, each None where it is not set.

    Raises:
        MLScaleError: a value is out of range, or has no effect.
    """
    size, kind, quality = ((settings or {}).get(name) for name in ("size", "format", "quality"))
    if size is None and kind is None:
        if quality is not None:
            raise MLScaleError(
                "reencode.quality has no effect without a format or a size",
                where="reencode.quality",
                why="the images' bytes stay as they are",
                fix="reencode.format=jpeg, or reencode.size=256",
            )
        return None
    kind = "jpeg" if kind in (None, "jpg") else kind
    if kind not in _EXTENSIONS:
        raise MLScaleError(
            f"reencode.format is {kind!r}",
            where="reencode.format",
            why=f"it is one of: {', '.join(_EXTENSIONS)}",
            fix="reencode.format=jpeg",
        )
    if size is not None:
        _check_range("size", size, 1, 1 << 16, 256)
    if quality is not None:
        _check_range("quality", quality, 1, 100, _QUALITY)
        if kind == _LOSSLESS:
            raise MLScaleError(
                "reencode.quality has no effect with reencode.format=png",
                where="reencode.quality",
                why="a PNG has no loss",
                fix="reencode.quality=null, or reencode.format=jpeg",
            )
    return Reencoding(size, kind, None if kind == _LOSSLESS else quality or _QUALITY)


def _check_range(name: str, value: object, least: int, most: int, usual: int) -> None:
    # bool is a subclass of int, so `true` would count as 1.
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise MLScaleError(
            f"reencode.{name} is {value!r}",
            where=f"reencode.{name}",
            why=f"it is a whole number from {least} to {most:,}",
            fix=f"reencode.{name}={usual}",
        )


def _write_picture(array: Mask | NDArray[np.uint8], kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()
