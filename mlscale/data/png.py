"""PNG: every chunk has a checksum, which not every decoder compares; and few chunks matter to the pixels."""

from __future__ import annotations

import struct
import zlib

START = b"\x89PNG\r\n\x1a\n"
_HEADER = b"\0\0\0\x0dIHDR"
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def check_chunks(content: bytes) -> tuple[bytes, bytes]:
    """Compare the checksum of every chunk.

    Returns:
        The file without what its pixels do not depend on: texts and colour profiles may unpack to any size, and an
        animation has further frames. And its EXIF block; empty where there is none.

    Raises:
        ValueError: a chunk is corrupt, or the file is cut short.
    """
    view, place, exif, kind = memoryview(content), len(START), b"", b"IHDR"
    needed, others = [view[:place]], False
    if not content.startswith(_HEADER, place):
        raise ValueError("it begins like a PNG, and has no header of one")
    while kind != b"IEND":
        if place + 12 > len(content):
            raise ValueError(f"the PNG is cut short after its chunk {_name(kind)}")
        length, kind = struct.unpack_from(">I4s", content, place)
        start, end = place + 8, place + 8 + length
        if end + 4 > len(content):
            raise ValueError(f"the PNG is cut short in its chunk {_name(kind)}")
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise ValueError(f"the PNG is corrupt: the checksum of its chunk {_name(kind)} does not match")
        if kind in _NEEDED:
            needed.append(view[place : end + 4])
        else:
            others = True
            exif = content[start:end] if kind == b"eXIf" else exif
        place = end + 4
    return b"".join(needed) if others else content, exif


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "replace")
