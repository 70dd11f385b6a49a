"""A PNG has all rows that its header states, whatever its kind, or is rejected by every decoder."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from mlscale.data.decoding import png
from mlscale.data.decoding.fast_decoder import read_indices
from mlscale.data.decoding.image_decoder import decode_image
from tests.awkward import chunk, encoded, photo

HEIGHT, WIDTH = 21, 13
KINDS = {
    **{f"grey of {depth} bits": (depth, 0) for depth in (1, 2, 4, 8, 16)},
    **{f"colours of {depth} bits": (depth, 2) for depth in (8, 16)},
    **{f"palette of {depth} bits": (depth, 3) for depth in (1, 2, 4, 8)},
    **{f"grey and alpha of {depth} bits": (depth, 4) for depth in (8, 16)},
    **{f"colours and alpha of {depth} bits": (depth, 6) for depth in (8, 16)},
}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def rows_of(depth: int, kind: int, interlaced: bool, size: tuple[int, int]) -> list[bytes]:
    """The rows of a picture without black, as they are stored before compression."""
    height, width = size
    areas = [(height, width)]
    if interlaced:
        areas = [(len(range(top, height, down)), len(range(left, width, right))) for top, left, down, right in PASSES]
    bits = depth * CHANNELS[kind]
    return [b"\0" + b"\xff" * -(-columns * bits // 8) for rows, columns in areas if columns for _ in range(rows)]


def written(
    data: bytes, depth: int, kind: int, *, interlaced: bool = False, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> bytes:
    """A PNG of compressed data, with the right checksums."""
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, kind, 0, 0, interlaced)
    palette = chunk(b"PLTE", b"\x10\x20\x30" * (1 << depth)) if kind == 3 else b""
    return png.START + chunk(b"IHDR", header) + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_missing_rows_are_an_error_whatever_the_kind(name: str, interlaced: bool) -> None:
    depth, kind = KINDS[name]
    rows = rows_of(depth, kind, interlaced, (HEIGHT, WIDTH))
    whole = written(zlib.compress(b"".join(rows)), depth, kind, interlaced=interlaced)
    assert decode_image(whole, None).min() > 0
    for data in (b"", b"".join(rows[:1]), b"".join(rows[: len(rows) // 2]), b"".join(rows[:-1]), b"".join(rows)[:-1]):
        short = written(zlib.compress(data), depth, kind, interlaced=interlaced)
        with pytest.raises((ValueError, OSError)):
            decode_image(short, None)
        with pytest.raises((ValueError, OSError)):
            decode_image(short, (5, 5), 3)
        if kind in (0, 3):
            with pytest.raises((ValueError, OSError)):
                read_indices(short)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (5, 5), (8, 8)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("black", [False, True])
def test_small_and_black_pictures_are_whole(size: tuple[int, int], interlaced: bool, black: bool) -> None:
    rows = rows_of(4, 3, interlaced, size)
    data = b"".join(bytes(len(row)) if black else row for row in rows)
    whole = written(zlib.compress(data), 4, 3, interlaced=interlaced, size=size)
    assert read_indices(whole).tolist() == [[0 if black else 15] * size[1]] * size[0]
    with pytest.raises((ValueError, OSError)):
        read_indices(written(zlib.compress(data[:-1]), 4, 3, interlaced=interlaced, size=size))


@pytest.mark.parametrize("columns", [254, 1000, 4095])
def test_a_large_black_picture_is_whole(columns: int) -> None:
    """What unpacks to much more than it takes is counted to its end."""
    size = (900, columns)
    data = zlib.compress(bytes(900 * (1 + columns)), 9)
    assert not read_indices(written(data, 8, 0, size=size)).any()
    with pytest.raises((ValueError, OSError)):
        decode_image(written(zlib.compress(bytes(900 * (1 + columns) - 1), 9), 8, 0, size=size), None)


def test_the_message_counts_what_is_missing() -> None:
    rows = rows_of(8, 4, False, (HEIGHT, WIDTH))
    short = written(zlib.compress(b"".join(rows[:7])), 8, 4)
    with pytest.raises(
        ValueError, match=r"^the PNG is cut short: its rows take 567 bytes, and its data unpacks to 189$"
    ):
        decode_image(short, None)


def test_data_in_many_chunks_and_after_the_last_row_is_no_harm() -> None:
    rows = np.zeros((HEIGHT, 1 + WIDTH), np.uint8).tobytes()
    data = zlib.compress(rows + bytes(1 << 20))
    header = png.START + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0))
    parts = [chunk(b"IDAT", data[start : start + 7]) for start in range(0, len(data), 7)]
    assert not decode_image(header + b"".join(parts) + chunk(b"IEND", b""), None).any()


def test_what_has_a_last_row_is_not_unpacked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[bytes] = []
    monkeypatch.setattr(png, "_expect_all_rows", counted.append)
    for mode in ("L", "LA", "RGBA", "P", "I;16"):
        image = photo().convert("L").convert(mode) if mode == "I;16" else photo(mode=mode)
        decode_image(encoded(image, "PNG"), None)
    assert not counted


def test_a_process_without_torch_rejects_the_same(tmp_path: Path) -> None:
    """Servers have no torch, and another decoder of plain PNG."""
    for number, kind in enumerate((0, 2)):
        rows = rows_of(8, kind, False, (HEIGHT, WIDTH))
        (tmp_path / f"{number}.png").write_bytes(written(zlib.compress(b"".join(rows[:5])), 8, kind))
    program = (
        "import sys, pathlib\n"
        "from mlscale.data.decoding.image_decoder import decode_image\n"
        "assert 'torch' not in sys.modules\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: decode_image(path.read_bytes(), None)\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.count("the PNG is cut short") == 2
