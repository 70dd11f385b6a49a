"""JPEG 2000: where a file ends between two tiles, OpenJPEG leaves the others black without a message."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

_START = b"\xff\x4f\xff\x51"
"""Of the code stream, in a JP2 file or alone: its first marker, and that of its sizes."""
_TILE_PART = 0xFF90


def check_tiles(content: bytes) -> None:
    """Raise if a tile, or a part of one, is missing.

    Args:
        content: a file that a decoder has accepted.

    Raises:
        ValueError: it ends before its last tile.
    """
    start = content.find(_START)
    if start < 0:
        return
    # The SIZ segment: end and offset of the image, then size and offset of its tiles.
    right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", content, start + 8)
    expected = -(-(right - left) // width) * -(-(bottom - top) // height)
    part_counts: Counter[int] = Counter()
    stated: dict[int, int] = {}
    for tile, parts in _iterate_tile_parts(content, start + 2):
        part_counts[tile] += 1
        # Parts may state 0 for unknown; one of them states the number.
        stated[tile] = max(parts, stated.get(tile, 1))
    whole = sum(part_counts[tile] >= parts for tile, parts in stated.items())
    if whole < expected:
        raise ValueError(f"the JPEG 2000 is cut short: {whole} of its {expected} tiles are whole")


def _iterate_tile_parts(content: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Yield the number of each part's tile, and the tile's number of parts; 0 where that is not stated."""
    while offset + 12 <= len(content):
        marker, length = struct.unpack_from(">HH", content, offset)
        if marker != _TILE_PART:
            # Not a marker, or the end of the code stream.
            if marker < 0xFF00 or marker == 0xFFD9:
                return
            offset += 2 + length
            continue
        tile, size, _, parts = struct.unpack_from(">HIBB", content, offset + 4)
        yield tile, parts
        if not size:  # up to the end
            return
        offset += size
