"""What the first bytes of a file show of its format, for every format that is decoded."""

import io

import pytest
from PIL import Image

from mlscale.data.decoding.image_files import (
    IMAGE_FORMATS,
    find_image_suffix,
    find_image_type,
    is_image_file,
)
from mlscale.data.decoding.pil import FORMATS


@pytest.mark.parametrize("kind", sorted({*FORMATS} - {"DIB"}))  # a DIB is a bitmap without its first bytes
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_file_of_every_format_is_recognised(kind: str, mode: str) -> None:
    Image.new(mode, (5, 3)).save(file := io.BytesIO(), kind)
    suffix, content_type = find_image_suffix(file.getvalue()), find_image_type(file.getvalue())
    assert is_image_file(f"a{suffix}")
    # Pillow knows both by the same format.
    assert Image.registered_extensions()[suffix] == kind
    assert content_type in {Image.MIME.get(kind), "image/x-portable-anymap"}


def test_less_usual_first_bytes() -> None:
    assert find_image_type(b"MM\0*\0\0\0\x08") == "image/tiff"
    assert find_image_type(b"P5 # by a camera\n5 3\n255\n") == "image/x-portable-anymap"


@pytest.mark.parametrize(
    "content",
    [b"", b"BMW is a make of cars", b"GIF8 or PNG", b"P3 report of 7", b"P5 7 ways", b"RIFF1234WAVE"],
)
def test_a_text_is_no_image(content: bytes) -> None:
    assert (find_image_suffix(content), find_image_type(content)) == (".bin", "")


def test_no_name_is_that_of_two_formats() -> None:
    for names in ([f.extensions for f in IMAGE_FORMATS], [f.content_types for f in IMAGE_FORMATS]):
        listed = [name for some in names for name in some]
        assert len(listed) == len(set(listed))
