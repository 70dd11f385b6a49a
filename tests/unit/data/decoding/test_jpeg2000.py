"""A JPEG 2000 that ends anywhere is rejected, between two tiles as well."""

from __future__ import annotations

import struct

import pytest

from mlscale.data.decoding.image_decoder import decode_image
from tests.awkward import encoded, photo

TILES = {"tile_size": (32, 32)}


@pytest.mark.parametrize(
    ("options", "tiles"),
    [
        (TILES, 6),
        ({**TILES, "no_jp2": True}, 6),
        ({**TILES, "tile_offset": (5, 3), "offset": (9, 7)}, 9),
        ({}, 1),
        ({"quality_layers": [20, 10], "irreversible": True, "progression": "RPCL"}, 1),
    ],
)
def test_a_cut_before_any_tile_is_rejected(options: dict[str, object], tiles: int) -> None:
    content = encoded(photo(), "JPEG2000", **options)
    decode_image(content, None)
    starts = [place for place in range(len(content)) if content.startswith(b"\xff\x90\0\x0a", place)]
    assert len(starts) == tiles
    for place in starts:
        for end in (b"", b"\xff\xd9"):
            with pytest.raises((ValueError, OSError)):
                decode_image(content[:place] + end, None)


def test_a_last_tile_without_a_size_is_whole() -> None:
    """Its size may be left out: then it goes up to the end."""
    content = encoded(photo(), "JPEG2000", no_jp2=True, **TILES)
    last = content.rindex(b"\xff\x90\0\x0a")
    open_end = content[: last + 6] + struct.pack(">I", 0) + content[last + 10 :]
    assert (decode_image(open_end, None) == decode_image(content, None)).all()


def test_a_missing_part_of_a_tile_is_an_error() -> None:
    content = encoded(photo(), "JPEG2000", no_jp2=True)
    start = content.index(b"\xff\x90\0\x0a")
    two_parts = content[: start + 11] + b"\2" + content[start + 12 :]
    with pytest.raises((ValueError, OSError), match="0 of its 1 tiles are whole"):
        decode_image(two_parts, None)
