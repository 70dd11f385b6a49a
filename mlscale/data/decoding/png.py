"""PNG: every chunk has a checksum, which not every decoder compares; and few chunks matter to the pixels.

Right checksums do not prove that all rows are there: a writer that stopped early wrote them, too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

START = b"\x89PNG\r\n\x1a\n"
# Length and name of the first chunk.
_HEADER = b"\0\0\0\x0dIHDR"
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Values of a pixel, by the kind of picture."""
_WHOLE = ((0, 0, 1, 1),)
_INTERLACED = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""The passes: first row, first column, and their distances."""
_CHUNK = 1 << 16


def check_chunks(content: bytes) -> tuple[bytes, bytes]:
    """Compare the checksum of every chunk.

    Returns:
        The file without what its pixels do not depend on: texts and colour profiles may unpack to any size, and an
        animation has further frames. And its EXIF block; empty where there is none.

    Raises:
        ValueError: a chunk is corrupt, or the file is cut short.
    """
    view, offset, exif, kind = memoryview(content), len(START), b"", b"IHDR"
    needed, others = [view[:offset]], False
    if not content.startswith(_HEADER, offset):
        raise ValueError("it begins like a PNG, and has no header of one")
    while kind != b"IEND":
        # Length, name and checksum of a chunk take 12 bytes.
        if offset + 12 > len(content):
            raise ValueError(f"the PNG is cut short after its chunk {_decode_chunk_name(kind)}")
        length, kind = struct.unpack_from(">I4s", content, offset)
        start, end = offset + 8, offset + 8 + length
        if end + 4 > len(content):
            raise ValueError(f"the PNG is cut short in its chunk {_decode_chunk_name(kind)}")
        # The checksum covers the name too, and not the length.
        if zlib.crc32(view[offset + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise ValueError(f"the PNG is corrupt: the checksum of its chunk {_decode_chunk_name(kind)} does not match")
        if kind in _NEEDED:
            needed.append(view[offset : end + 4])
        else:
            others = True
            exif = content[start:end] if kind == b"eXIf" else exif
        offset = end + 4
    return b"".join(needed) if others else content, exif


def check_rows(content: bytes, last_row: NDArray[Any]) -> None:
    """Raise if rows are missing, which Pillow leaves black; libpng rejects such a file by itself.

    Rows are stored in order, so that a picture whose last row has anything in it is whole. Only where it has not, or
    where rows come in several passes, are the data unpacked to be counted.

    Args:
        content: the file, of which `check_chunks` made sure.
        last_row: its last row as Pillow decoded it.

    Raises:
        ValueError: the data ends before the last row.
    """
    # The last byte of the header chunk.
    is_interlaced = content[28]
    if is_interlaced or not last_row.any():
        _expect_all_rows(content)


def _expect_all_rows(content: bytes) -> None:
    expected, unpacked_size = _count_row_bytes(content), 0
    inflate = zlib.decompressobj()
    data: bytes | memoryview
    for data in _iterate_image_data(content):
        # In parts, and no more than the rows take: a small file may unpack to any size.
        while unpacked_size < expected and (unpacked := inflate.decompress(data, _CHUNK)):
            unpacked_size += len(unpacked)
            data = inflate.unconsumed_tail
    if unpacked_size < expected:
        raise ValueError(
            f"the PNG is cut short: its rows take {expected:,} bytes, and its data unpacks to {unpacked_size:,}"
        )


def _count_row_bytes(content: bytes) -> int:
    """Return the bytes of the rows of all passes, each with the byte that names its filter."""
    width, height, depth, kind = struct.unpack_from(">IIBB", content, 16)
    total, bits = 0, depth * _CHANNELS[kind]
    for top, left, down, right in _INTERLACED if content[28] else _WHOLE:
        rows, columns = len(range(top, height, down)), len(range(left, width, right))
        # A pass without columns has no rows, and so no filter bytes.
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return total


def _iterate_image_data(content: bytes) -> Iterator[memoryview]:
    view, offset, kind = memoryview(content), len(START), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, offset)
        if kind == b"IDAT":
            yield view[offset + 8 : offset + 8 + length]
        offset += 12 + length


def _decode_chunk_name(kind: bytes) -> str:
    return kind.decode("ascii", "replace")
