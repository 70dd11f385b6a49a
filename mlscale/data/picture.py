"""Pictures by the fastest decoder that gives PIL's pixels: libjpeg-turbo for JPEG, libpng for plain PNG, else PIL.

Opening reads the header alone, so that a part can be chosen before anything is decoded. What a fast decoder refuses
goes to PIL, whose verdict and message count. Every decoder here releases the interpreter's lock.

The orientation and colour profile that a file may carry are left alone, as PIL leaves them alone.
"""

from __future__ import annotations

import io
import struct
import threading
from typing import Any, Protocol

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_png

Pixels = NDArray[np.uint8]

Image.preinit()  # The usual formats, once and in this thread: threads that decode must not do it together.

_GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_GREY, _PNG_RGB = 0, 2
_local = threading.local()


class Picture(Protocol):
    """An encoded picture whose header was read."""

    height: int
    width: int
    grey: bool

    def pixels(self, channels: int, shrink: int = 1) -> Pixels:
        """Decode.

        Args:
            channels: 1, or 3; grey is repeated into 3.
            shrink: 1, 2, 4 or 8: a decoder that can do so cheaply gives about 1 / shrink of height and width.

        Returns:
            uint8 (h, w, channels). It may lie in a buffer of this thread, which the next picture overwrites.

        Raises:
            Exception: whatever the decoder raises.
        """


def open_picture(content: bytes) -> Picture:
    """Read the header.

    Raises:
        ValueError: a pixel type that is no picture.
        OSError: PIL cannot read it.
    """
    try:
        if content.startswith(b"\xff\xd8"):
            return _Jpeg(content)
        if content.startswith(_PNG):
            return _Png(content)
    except (ValueError, struct.error):
        pass  # Rare kinds, and damaged ones.
    return _Pil(content)


class _Jpeg:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.height, self.width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("Gray", "YCbCr", "RGB") or _too_large(self.height, self.width):
            raise ValueError(colours)
        self.grey = colours == "Gray"

    def pixels(self, channels: int, shrink: int = 1) -> Pixels:
        height, width = -(-self.height // shrink), -(-self.width // shrink)
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                self._content,
                "GRAY" if channels == 1 else "RGB",
                min_height=height if shrink > 1 else 0,
                min_width=width if shrink > 1 else 0,
                min_factor=shrink,
                buffer=buffer("picture", height * width * channels),
            )
        except ValueError:
            return _Pil(self._content).pixels(channels)
        return pixels


class _Png:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.width, self.height, depth, kind = struct.unpack(">IIBB", content[16:26])
        if depth != 8 or kind not in (_PNG_GREY, _PNG_RGB) or _too_large(self.height, self.width):
            raise ValueError(kind)
        self.grey = kind == _PNG_GREY

    def pixels(self, channels: int, shrink: int = 1) -> Pixels:
        if channels == 1 and not self.grey:
            return _Pil(self._content).pixels(channels)
        try:
            encoded = torch.from_numpy(np.frombuffer(self._content, np.uint8).copy())  # torch wants it writable
            decoded = decode_png(encoded, ImageReadMode.GRAY if self.grey else ImageReadMode.RGB)
        except (RuntimeError, ValueError):
            return _Pil(self._content).pixels(channels)
        pixels: Pixels = decoded.permute(1, 2, 0).numpy()
        return pixels if pixels.shape[2] == channels else np.repeat(pixels, channels, axis=2)


class _Pil:
    def __init__(self, content: bytes) -> None:
        self._content = content
        with Image.open(io.BytesIO(content)) as image:
            self.width, self.height = image.size
            if image.mode in ("I", "F"):
                raise ValueError(
                    f"its pixels are of PIL's type '{image.mode}', neither grey nor colour of 8 or 16 bits"
                )
            self.grey = image.mode in _GREY

    def pixels(self, channels: int, shrink: int = 1) -> Pixels:
        with Image.open(io.BytesIO(self._content)) as image:
            picture: Image.Image = image
            if image.mode.startswith("I;16"):  # PIL clips these when it converts them
                picture = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            mode = "L" if channels == 1 else "RGB"
            pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        return pixels.reshape(*pixels.shape[:2], channels)


def buffer(name: str, size: int) -> NDArray[np.uint8]:
    """At least `size` bytes that belong to this thread: fresh memory for each picture costs page faults."""
    held: Any = getattr(_local, name, None)
    if held is None or held.size < size:
        held = np.empty(max(size, 1 << 20), np.uint8)
        setattr(_local, name, held)
    return held  # type: ignore[no-any-return]


def _too_large(height: int, width: int) -> bool:
    """PIL refuses what may be a decompression bomb; so its limit is asked."""
    return Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS
