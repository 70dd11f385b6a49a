"""The only way to Pillow's decoders: a list of formats, a limit of pixels, and no forgiveness.

Left to itself `Image.open` asks every plugin that there is, whatever a file is called, and the one for EPS starts
Ghostscript. Settings of the process (`ImageFile.LOAD_TRUNCATED_IMAGES`, `Image.MAX_IMAGE_PIXELS`), which any library
may change, have no effect here, and are left as they were.
"""

from __future__ import annotations

import importlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

# Imported on use: JPEGs, which most data is, need nothing of it, and a plain loop imports the loader without it.
if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 89_478_485
"""Pixels of an image, at most, unless another limit is set: Pillow's, 256 MiB of RGB."""

_JPEG2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
"""First bytes of a file with boxes, and of a codestream alone: OpenJPEG leaves tiles that are missing black, without a
message."""
_PLUGINS = ("Bmp", "Gif", "Jpeg", "Mpo", "Png", "Ppm", "Tiff", "WebP")


@contextmanager
def open_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image of one of `FORMATS`; decode it inside the `with` block.

    Raises:
        TooLarge: it has more pixels than the limit.
        ValueError: it is of none of them.
        OSError: its header is corrupt.
    """
    if not content:
        raise ValueError("it is empty")
    from PIL import Image, UnidentifiedImageError

    with _SETTINGS:
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            if content.startswith(_JPEG2000):
                raise ValueError("a JPEG 2000 is not decoded; magick in.jp2 out.png writes it as a PNG") from None
            raise ValueError(
                f"it is not an image of a known format ({', '.join(FORMATS)}), or its header is corrupt; "
                f"it begins {content[:8]!r}"
            ) from None
        with image:
            check_size(image.height, image.width, max_pixels)
            yield image


class TooLarge(ValueError):  # noqa: N818 - an image, and not a fault of ours
    """An image of more pixels than the limit."""


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Refuse what would take too much memory, before anything is decoded.

    Raises:
        TooLarge: an image of so many pixels.
    """
    if height * width > max_pixels:
        raise TooLarge(f"{width}×{height} pixels are more than {max_pixels:,}, the limit (max_pixels)")


class _PillowSettings:
    """Pillow's settings as they must be while any thread is inside; outside they are as they were."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._truncated: bool = False
        self._pixels: int | None = None

    def __enter__(self) -> None:
        from PIL import Image, ImageFile

        with self._lock:
            _load_plugins()
            if not self._inside:
                self._truncated, self._pixels = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
            # At every entry, since other code may have set them while a thread was inside. `check_size` has the limit.
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        from PIL import Image, ImageFile

        with self._lock:
            self._inside -= 1
            if not self._inside:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = self._truncated, self._pixels


_SETTINGS = _PillowSettings()


@cache
def _load_plugins() -> None:
    # Under a lock and once: threads that decode must not do it together.
    for name in _PLUGINS:
        importlib.import_module(f"PIL.{name}ImagePlugin")
