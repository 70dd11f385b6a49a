"""Pictures by the fastest strict decoder: libjpeg-turbo for JPEG, libpng for plain PNG, else Pillow.

Opening reads the header alone, so that a part can be chosen before anything is decoded, and what is too large is
refused before it takes memory. What a decoder warns of is an error (see `jpeg`); of a PNG every checksum is compared,
and every row has to be there. Pictures are turned upright by their EXIF orientation; their colour
profiles are left alone.

Training, `predict` and `serve` all decode by this. It needs numpy and simplejpeg, and Pillow for what is not a usual
JPEG; where torch is loaded anyway, its faster decoder of plain PNG is used. Every decoder here releases the
interpreter's lock.
"""

from __future__ import annotations

import struct
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mlscale.data.decoding import jpeg, png
from mlscale.data.decoding.pil import MAX_PIXELS, check_size, open_image

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

DECODE_VERSION = 3
"""The version of how files are decoded to pixels. 3: all of a JPEG's pixels are decoded before it is resized; 2: at an
eighth, quarter or half of the size, where that was enough; 1: EXIF orientation was not applied."""

_GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})
_PNG_GREY, _PNG_RGB = 0, 2
_FAST = frozenset({"Gray", "YCbCr", "RGB"})
_UNCHECKED = "its rare sampling of colours can only be decoded without strict checks"
_local = threading.local()


class EncodedPicture(Protocol):
    """An encoded picture whose header was read; height and width are those of the upright picture.

    Attributes:
        orientation: of its EXIF block, 1 to 8; 1 is upright, also where it has none.
        tolerated: once decoded, what a strict decoder warned of and was found harmless; empty where there is nothing.
    """

    height: int
    width: int
    grey: bool
    orientation: int
    tolerated: str

    def decode_pixels(self, channels: int) -> Pixels:
        """Decode the picture.

        Args:
            channels: 1, or 3; grey is repeated into 3.

        Returns:
            uint8 (h, w, channels). It may be in a buffer of this thread, which the next picture overwrites.

        Raises:
            Exception: whatever the decoder raises.
        """


def open_picture(content: bytes, *, max_pixels: int = MAX_PIXELS) -> EncodedPicture:
    """Read the header of an encoded picture.

    Args:
        content: the file.
        max_pixels: of height × width; more are refused.

    Raises:
        ValueError: it is too large, corrupt, of no known format, or its pixels are of a type without a known range.
        OSError: Pillow can't read it.
    """
    if content.startswith(jpeg.START):
        return _open_jpeg(content, max_pixels)
    if content.startswith(png.START):
        return _open_png(content, max_pixels)
    return _PillowPicture(content, max_pixels)


def _open_jpeg(content: bytes, max_pixels: int) -> EncodedPicture:
    exif, is_complete = jpeg.read_header(content)
    if not is_complete:
        raise ValueError("the JPEG is cut short in its header, or of a kind that is not decoded")
    orientation = read_orientation(exif)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
    except KeyError:
        colours = None
    except ValueError as error:
        if "subsampling" not in str(error):
            raise
        colours = None
    if colours is None:  # intact, but of a sampling that the strict decoder does not know
        picture = _PillowPicture(content, max_pixels, orientation)
        picture.tolerated = _UNCHECKED
        return picture
    check_size(height, width, max_pixels)
    # libjpeg-turbo converts these itself; four colours are left to Pillow.
    if colours in _FAST:
        return JpegPicture(content, height, width, colours == "Gray", orientation)
    return _CmykPicture(content, max_pixels, orientation)


class JpegPicture:
    """A JPEG of grey or of three colours, which libjpeg-turbo decodes by itself."""

    tolerated = ""

    def __init__(self, content: bytes, height: int, width: int, grey: bool, orientation: int) -> None:
        self._content, self._stored, self.orientation = content, (height, width), orientation
        self.height, self.width = (width, height) if is_turned(orientation) else (height, width)
        self.grey = grey

    def decode_pixels(self, channels: int) -> Pixels:
        height, width = self._stored

        def decode_strict(content: bytes) -> Pixels:
            pixels: Pixels = simplejpeg.decode_jpeg(
                content,
                "GRAY" if channels == 1 else "RGB",
                buffer=get_thread_buffer("picture", height * width * channels),
            )
            return pixels

        pixels, self.tolerated = jpeg.decode_strictly(self._content, decode_strict)
        return pixels if self.orientation == UPRIGHT else rotate_upright(pixels, self.orientation)


def _open_png(content: bytes, max_pixels: int) -> EncodedPicture:
    content, exif = png.check_chunks(content)
    orientation = read_orientation(exif)
    # The header is the first chunk, as `check_chunks` has made sure.
    width, height, depth, kind = struct.unpack(">IIBB", content[16:26])
    check_size(height, width, max_pixels)
    if depth == 8 and kind in (_PNG_GREY, _PNG_RGB):
        return _PngPicture(content, height, width, kind == _PNG_GREY, orientation)
    return _PillowPicture(content, max_pixels, orientation)


class _PngPicture:
    tolerated = ""

    def __init__(self, content: bytes, height: int, width: int, grey: bool, orientation: int) -> None:
        self._content, self.orientation = content, orientation
        self.height, self.width = (width, height) if is_turned(orientation) else (height, width)
        self.grey = grey

    def decode_pixels(self, channels: int) -> Pixels:
        if "torch" not in sys.modules or (channels == 1 and not self.grey):
            return self._decode_by_pillow(channels)
        pixels = self._decode_by_torch()
        if pixels is None:
            return self._decode_by_pillow(channels)
        pixels = pixels if pixels.shape[2] == channels else np.repeat(pixels, channels, axis=2)
        return pixels if self.orientation == UPRIGHT else rotate_upright(pixels, self.orientation)

    def _decode_by_torch(self) -> Pixels | None:
        import torch
        from torchvision.io import ImageReadMode, decode_png

        try:
            encoded = torch.from_numpy(np.frombuffer(self._content, np.uint8).copy())  # torch wants it writable
            decoded = decode_png(encoded, ImageReadMode.GRAY if self.grey else ImageReadMode.RGB)
        # Pillow tries again, and raises its own error if the file is corrupt.
        except (RuntimeError, ValueError):
            return None
        pixels: Pixels = decoded.permute(1, 2, 0).numpy()
        return pixels

    def _decode_by_pillow(self, channels: int) -> Pixels:
        # The size was compared with the limit when the header was read.
        return _PillowPicture(self._content, self.height * self.width, self.orientation).decode_pixels(channels)


class _PillowPicture:
    """A picture of any other kind that Pillow reads.

    Args:
        content: the file.
        max_pixels: see `open_picture`.
        orientation: of its EXIF block; None reads it by Pillow, which turns a TIFF by itself.
    """

    tolerated = ""

    def __init__(self, content: bytes, max_pixels: int, orientation: int | None = None) -> None:
        self._content, self._max_pixels = content, max_pixels
        with open_image(content, max_pixels=max_pixels) as image:
            width, height = image.size
            # 32-bit numbers, whose range a file does not state.
            if image.mode in ("I", "F"):
                raise ValueError(
                    f"its pixels are of Pillow's type '{image.mode}', neither grey nor colour of 8 or 16 bits"
                )
            self.grey = image.mode in _GREY
            if orientation is None:
                exif = image.info.get("exif") if image.format == "WEBP" else None
                orientation = read_orientation(exif) if isinstance(exif, bytes) else UPRIGHT
        self.orientation = orientation
        self.height, self.width = (width, height) if is_turned(orientation) else (height, width)

    def decode_pixels(self, channels: int) -> Pixels:
        with open_image(self._content, max_pixels=self._max_pixels) as image:
            _expect_whole(image, self._content)
            picture: Image.Image = image
            if image.mode.startswith("I;16"):  # Pillow clips these when it converts them
                from PIL import Image

                picture = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            mode = "L" if channels == 1 else "RGB"
            pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        return rotate_upright(pixels.reshape(*pixels.shape[:2], channels), self.orientation)


class _CmykPicture:
    """A JPEG of four colours: checked by the strict decoder, converted by Pillow."""

    tolerated = ""
    grey = False

    def __init__(self, content: bytes, max_pixels: int, orientation: int) -> None:
        self._content, self._max_pixels, self.orientation = content, max_pixels, orientation
        picture = _PillowPicture(content, max_pixels, orientation)
        self.height, self.width = picture.height, picture.width

    def decode_pixels(self, channels: int) -> Pixels:
        def decode_strict(content: bytes) -> bytes:
            simplejpeg.decode_jpeg(content, "CMYK")
            return content

        intact, self.tolerated = jpeg.decode_strictly(self._content, decode_strict)
        return _PillowPicture(intact, self._max_pixels, self.orientation).decode_pixels(channels)


def read_indices(content: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Decode a picture of one number a pixel as it is written: grey values, or indices of a palette; upright.

    Raises:
        ValueError: it has colours, or see `open_picture`.
        OSError: Pillow can't read it.
    """
    content, exif = png.check_chunks(content) if content.startswith(png.START) else (content, b"")
    with open_image(content, max_pixels=max_pixels) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise ValueError(f"its pixels are of Pillow's type '{image.mode}', and not one class number each")
        _expect_whole(image, content)
        return rotate_upright(np.asarray(image), read_orientation(exif))


def _expect_whole(image: Image.Image, content: bytes) -> None:
    """Raise if rows of a PNG are missing: Pillow leaves them black without a message."""
    image.load()
    if content.startswith(png.START):
        png.check_rows(content, np.asarray(image.crop((0, image.height - 1, *image.size))))


def get_thread_buffer(name: str, size: int) -> NDArray[np.uint8]:
    """Return at least `size` bytes that belong to this thread: new memory for each picture costs page faults."""
    held: Any = getattr(_local, name, None)
    if held is None or held.size < size:
        held = np.empty(max(size, 1 << 20), np.uint8)
        setattr(_local, name, held)
    return held  # type: ignore[no-any-return]


UPRIGHT = 1
_TAG = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_VALUE_FORMATS = {1: "B", 3: "H", 4: "I"}
"""Types that the value may be written as: the standard asks for the second."""
_ENTRY_BYTES = 12


def read_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that an EXIF block names; 1 where it names none, or is corrupt.

    Args:
        exif: a TIFF header and its first directory, with or without the prefix 'Exif'.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(block[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for offset in range(start + 2, start + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
            tag, kind = struct.unpack_from(f"{order}HH", block, offset)
            if tag == _TAG:
                # A value of up to four bytes is in the entry itself.
                (value,) = struct.unpack_from(f"{order}{_VALUE_FORMATS.get(kind, 'H')}", block, offset + 8)
                return int(value) if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT


def is_turned(orientation: int) -> bool:
    """Return True if height and width are swapped."""
    return orientation >= 5


def rotate_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of pixels (h, w, …) the right way up."""
    # 5 to 8 are transposed; then rows and columns are reversed as the orientation needs.
    turned = np.swapaxes(pixels, 0, 1) if is_turned(orientation) else pixels
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
