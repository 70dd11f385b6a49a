"""Image files as they occur: of many encoders, with deviations that do no harm, and corrupt ones.

What Pillow can't write is in `tests/images` (written by cjpeg, ImageMagick and imagecodecs).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

STORED = {path.name: path.read_bytes() for path in sorted((Path(__file__).parent / "images").iterdir())}


def photo(height: int = 61, width: int = 83, mode: str = "RGB", zoom: float = 1) -> Image.Image:
    """Smooth, as photographs are, with some noise."""
    y, x = np.mgrid[:height, :width]
    wave = np.stack([np.sin(x / zoom / 9 + i) * np.cos(y / zoom / (7 + i)) for i in range(3)], -1) * 100 + 128
    noisy = np.clip(wave + np.random.RandomState(0).randn(height, width, 3) * 8, 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(
    kind: str, orientation: int, mode: str = "RGB", size: tuple[int, int] = (61, 83), **options: object
) -> bytes:
    """A file with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photo(*size, mode=mode), kind, exif=exif, **options)


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG's header."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))


JPEG = encoded(photo(), "JPEG", quality=90)
PROGRESSIVE = encoded(photo(), "JPEG", progressive=True)
RESTARTS = encoded(photo(), "JPEG", quality=90, restart_marker_blocks=3)
PNG = encoded(photo(), "PNG")
_PROFILE = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(200))
_HEADER = 8 + 25
"""Bytes of a PNG up to and with its first chunk."""
_MUCH = zlib.compress(bytes(8 << 20))
_SIXTEEN = Image.fromarray(np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64))


def _in_header(content: bytes, extra: bytes) -> bytes:
    place = content.index(b"\xff\xdb")
    return content[:place] + extra + content[place:]


def _scan_parameters(content: bytes) -> bytes:
    start = content.index(b"\xff\xda") + 2
    end = start + int.from_bytes(content[start : start + 2])
    return content[: end - 3] + bytes(3) + content[end:]


def _twice(content: bytes) -> bytes:
    return content[:2] + _PROFILE + _PROFILE + content[2:]


DEVIATIONS: dict[str, Callable[[bytes], bytes]] = {
    "zeros in the header": lambda content: _in_header(content, bytes(300)),
    "three bytes in the header": lambda content: _in_header(content, b"abc"),
    "zeros before the end": lambda content: content[:-2] + bytes(37) + content[-2:],
    "zeros before restarts": lambda content: re.sub(rb"(?=\xff[\xd0-\xd7])", bytes(3), content),
    "unused scan parameters": _scan_parameters,
    "version 0 of JFIF": lambda content: content.replace(b"JFIF\0\1", b"JFIF\0\0", 1),
    "profile there twice": _twice,
    "several at once": lambda content: _twice(_in_header(_scan_parameters(content[:-2]), b"\0\0")),
    "no end marker": lambda content: content[:-2],
}
"""What intact JPEGs have and libjpeg-turbo warns of; made of a sequential one with restart markers."""

INTACT = {
    "420": JPEG,
    "444": encoded(photo(), "JPEG", quality=95, subsampling=0),
    "422": encoded(photo(), "JPEG", subsampling=1),
    "progressive": PROGRESSIVE,
    "restarts": RESTARTS,
    "rgb jpeg": encoded(photo(), "JPEG", keep_rgb=True),
    "grey jpeg": encoded(photo(mode="L"), "JPEG"),
    "one pixel": encoded(photo(1, 1), "JPEG"),
    "cmyk": encoded(photo(mode="CMYK"), "JPEG"),
    "data after the end": JPEG + b"more" * 100,
    "two in one": encoded(photo(), "MPO", save_all=True, append_images=[photo()]),
    "fill bytes": _in_header(JPEG[:-2], b"\xff\xff") + b"\xff" * 9 + JPEG[-2:],
    "thumbnail in exif": JPEG[:2] + segment(0xE1, b"Exif\0\0" + JPEG[:9000]) + JPEG[2:],
    "exif of nonsense": JPEG[:2] + segment(0xE1, b"Exif\0\0MM\0*" + b"\xff" * 30) + JPEG[2:],
    **{name: content for name, content in STORED.items() if name not in ("twelve_bits.jpg", "jpeg_ls.jpg")},
    "png": PNG,
    "interlaced sixteen bits": encoded(
        Image.fromarray(np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)), "PNG"
    ),
    "grey png": encoded(photo(mode="L"), "PNG"),
    "palette": encoded(photo(mode="P"), "PNG"),
    "one bit": encoded(photo(mode="1"), "PNG"),
    "grey and alpha": encoded(photo(mode="LA"), "PNG"),
    "alpha": encoded(photo(mode="RGBA"), "PNG"),
    "transparent colour": encoded(photo(), "PNG", transparency=(1, 2, 3)),
    "text that unpacks to 8 MiB": PNG[:_HEADER]
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20)))
    + PNG[_HEADER:],
    "profile that unpacks to 8 MiB": PNG[:_HEADER]
    + chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(80 << 20)))
    + PNG[_HEADER:],
    "animated png": encoded(photo(), "PNG", save_all=True, append_images=[photo(mode="L").convert("RGB")]),
    "data after the end of a png": PNG + bytes(99),
    "bmp": encoded(photo(), "BMP"),
    "ppm": encoded(photo(), "PPM"),
    "gif": encoded(photo(mode="P"), "GIF"),
    "webp": encoded(photo(), "WEBP"),
    "webp with alpha": encoded(photo(mode="RGBA"), "WEBP", lossless=True),
    "tiff": encoded(photo(), "TIFF"),
    "tiff lzw": encoded(photo(), "TIFF", compression="tiff_lzw"),
    "tiff of 16 bits": encoded(_SIXTEEN, "TIFF"),
}
TURNED = {
    f"{name}, orientation {orientation}": turned(kind, orientation, mode, **options)
    for name, kind, mode, options in (
        ("jpeg", "JPEG", "RGB", {}),
        ("progressive jpeg", "JPEG", "RGB", {"progressive": True}),
        ("grey jpeg", "JPEG", "L", {}),
        ("cmyk jpeg", "JPEG", "CMYK", {}),
        ("png", "PNG", "RGB", {}),
        ("palette png", "PNG", "P", {}),
        ("webp", "WEBP", "RGB", {"lossless": True}),
        ("tiff", "TIFF", "RGB", {}),
        ("tiff lzw", "TIFF", "RGB", {"compression": "tiff_lzw"}),
    )
    for orientation in range(1, 9)
}


def holed(content: bytes, start: float, count: int = 400) -> bytes:
    """A file with zeros in it, as a disk or a broken transfer leaves them."""
    place = int(len(content) * start)
    return content[:place] + bytes(count) + content[place + count :]


def huge(content: bytes, place: int, layout: str) -> bytes:
    """A file whose header claims 60,000 × 60,000 pixels."""
    size = struct.pack(layout, 60000, 60000)
    return content[:place] + size + content[place + len(size) :]


TOO_LARGE = {
    "huge jpeg": huge(JPEG, JPEG.index(b"\xff\xc0") + 5, ">HH"),
    "huge png": PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) + PNG[_HEADER:],
    "huge gif": huge(INTACT["gif"], 6, "<HH"),
    "huge bmp": huge(INTACT["bmp"], 18, "<II"),
    "huge ppm": b"P6 60000 60000 255\n" + bytes(100),
}
CORRUPT = {
    **TOO_LARGE,
    **{f"cut {name}": INTACT[name][: len(INTACT[name]) * 3 // 4] for name in ("420", "progressive", "png", "grey png")},
    **{
        f"cut {name}": INTACT[name][: len(INTACT[name]) // 2]
        for name in ("cmyk", "webp", "tiff", "tiff lzw", "bmp", "gif")
    },
    **{f"cut to its start {name}": content[:30] for name, content in INTACT.items() if name != "one pixel"},
    "holed jpeg": holed(JPEG, 0.6),
    "holed progressive": holed(PROGRESSIVE, 0.5),
    "holed restarts": holed(RESTARTS, 0.6),
    "holed cmyk": holed(INTACT["cmyk"], 0.6),
    "holed png": holed(PNG, 0.5),
    "png without an end": PNG[:-12],
    "hole up to the end": JPEG[:-600] + bytes(600),
    "swapped blocks": JPEG[:1000] + JPEG[1500:2000] + JPEG[1000:1500] + JPEG[2000:],
    "bytes before the end": JPEG[:-2] + b"abcdefgh" * 5 + JPEG[-2:],
    "a lost segment": JPEG[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")[1:] + JPEG[2:],
    "progressive without an end": PROGRESSIVE[:-2],
    "progressive cut between scans": PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xc4")],
    "twelve bits": STORED["twelve_bits.jpg"],
    "JPEG-LS": STORED["jpeg_ls.jpg"],
    "very many scans": PROGRESSIVE[:-2] + PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2] * 300 + PROGRESSIVE[-2:],
    "checksum of a chunk": PNG[:_HEADER] + chunk(b"tEXt", b"a\0b")[:-1] + b"?" + PNG[_HEADER:],
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(60),
    "nothing": b"",
    "text": b"this is no image",
    "marker alone": b"\xff\xd8\xff",
}
"""Files that no decoder should make pixels of."""
