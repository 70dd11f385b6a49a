"""Recorded pictures are a servable's, which is not trusted."""

import base64
import io
import zlib

from PIL import Image

from mlscale.export.warmup.answer_comparison import _compare_pictures


def encode(*size: int) -> str:
    file = io.BytesIO()
    Image.new("L", (size[0], size[1]), 3).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def claim_size(text: str, side: int) -> str:
    """Return a PNG whose header states another size."""
    content = bytearray(base64.b64decode(text))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return base64.b64encode(content).decode()


def test_what_is_no_picture_differs() -> None:
    good = encode(4, 3)
    assert _compare_pictures(good, good) == 1.0
    for bad in (encode(3, 4), "no base64", base64.b64encode(b"no image").decode(), claim_size(good, 60_000)):
        assert _compare_pictures(good, bad) == 0.0
