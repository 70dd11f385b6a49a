"""The formats of image files: one table of names, first bytes and content types, of the formats that are decoded.

Folders, shards, `predict`, `export`, `serve` and `loadtest` read it, so that what one of them takes, all of them take.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class ImageFormat(NamedTuple):
    """A format of image files: names, first bytes and content types.

    Attributes:
        extensions: of file names, in lower case, without the dot; the usual one first.
        signature: of the first bytes, at most `SIGNATURE_BYTES`.
        content_types: in requests, the registered one first.
    """

    extensions: tuple[str, ...]
    signature: re.Pattern[bytes]
    content_types: tuple[str, ...]


def _describe_format(extensions: str, signature: bytes, content_types: str) -> ImageFormat:
    return ImageFormat(tuple(extensions.split()), re.compile(signature, re.DOTALL), tuple(content_types.split()))


SIGNATURE_BYTES = 16
# Longer than two letters where a text could begin with those: 'BMW' is not a bitmap, nor 'P5 of 7' a picture.
IMAGE_FORMATS = (
    _describe_format("jpg jpeg jpe jfif mpo", rb"\xff\xd8\xff", "image/jpeg image/jpg"),
    _describe_format("png apng", rb"\x89PNG", "image/png"),
    _describe_format("webp", rb"RIFF.{4}WEBP", "image/webp"),
    _describe_format("gif", rb"GIF8[79]a", "image/gif"),
    _describe_format("bmp dib", rb"BM.{4}\0{4}", "image/bmp image/x-ms-bmp"),
    # Of either byte order, with offsets of 32 bits or of 64 (BigTIFF).
    _describe_format("tif tiff", rb"II[*+]\0|MM\0[*+]", "image/tiff"),
    _describe_format(
        "ppm pgm pbm pnm",
        rb"P[1-6]\s+(#|\d+\s+(#|\d))",
        "image/x-portable-anymap image/x-portable-pixmap image/x-portable-graymap image/x-portable-bitmap",
    ),
)
IMAGE_EXTENSIONS = frozenset(extension for format_ in IMAGE_FORMATS for extension in format_.extensions) | {
    *("jp2", "j2k", "jpx")
}
"""In lower case, without the dot, of every format in `mlscale.data.decoding.pil.FORMATS`; and of JPEG 2000, which is
refused by name and not skipped."""


def is_image_file(name: str) -> bool:
    """Return True if a file's name, or a member's extension such as `left.jpg`, ends as an image's does."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS


def find_image_format(content: bytes | bytearray) -> ImageFormat | None:
    """Return the format of an image file, by its first bytes; None of anything else."""
    start = bytes(content[:SIGNATURE_BYTES])
    return next((format_ for format_ in IMAGE_FORMATS if format_.signature.match(start)), None)


def find_image_suffix(content: bytes | bytearray, other: str = ".bin") -> str:
    """Return the usual suffix of an image file, by its first bytes; `other` of anything else."""
    image_format = find_image_format(content)
    return f".{image_format.extensions[0]}" if image_format else other


def find_image_type(content: bytes | bytearray, other: str = "") -> str:
    """Return the content type of an image file, by its first bytes; `other` of anything else."""
    image_format = find_image_format(content)
    return image_format.content_types[0] if image_format else other
