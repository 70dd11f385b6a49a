"""Every intact file has Pillow's pixels the right way up; what is corrupt or too large is rejected."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mlscale.data.decoding.fast_decoder import open_picture
from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.decoding.pil import TooLarge
from mlscale.data.decoding.resample import Box, find_middle_box, resize_region
from tests import awkward
from tests.awkward import encoded, photo

KINDS = {
    "420": encoded(photo(), "JPEG", quality=90),
    "444": encoded(photo(), "JPEG", quality=95, subsampling=0),
    "422": encoded(photo(), "JPEG", subsampling=1),
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "grey jpeg": encoded(photo(mode="L"), "JPEG"),
    "one pixel": encoded(photo(1, 1), "JPEG"),
    "cmyk": encoded(photo(mode="CMYK"), "JPEG"),
    "png": encoded(photo(), "PNG"),
    "grey png": encoded(photo(mode="L"), "PNG"),
    "palette": encoded(photo(mode="P"), "PNG"),
    "one bit": encoded(photo(mode="1"), "PNG"),
    "grey and alpha": encoded(photo(mode="LA"), "PNG"),
    "alpha": encoded(photo(mode="RGBA"), "PNG"),
    "transparent colour": encoded(photo(), "PNG", transparency=(1, 2, 3)),
    "bmp": encoded(photo(), "BMP"),
    "webp": encoded(photo(), "WEBP"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_pils(kind: str, channels: int) -> None:
    content = KINDS[kind]
    image = Image.open(io.BytesIO(content))
    grey = image.mode in ("1", "L", "LA")
    picture = open_picture(content)
    assert (picture.height, picture.width, picture.grey) == (image.height, image.width, grey)
    if channels == 1 and not grey:
        with pytest.raises(ValueError, match="it has colours"):
            decode_image(content, None, 1)
        return
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    found = decode_image(content, None, channels)
    assert found.shape == (channels, image.height, image.width)
    assert np.array_equal(found, expected[None] if channels == 1 else expected.transpose(2, 0, 1))


def test_sixteen_bits_lose_the_lower_eight() -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    assert np.array_equal(decode_image(encoded(Image.fromarray(values), "PNG"), None)[0], values >> 8)


FILES = {**awkward.INTACT, **awkward.TURNED}


@pytest.mark.parametrize("name", FILES)
def test_intact_files_have_pillows_pixels_the_right_way_up(name: str) -> None:
    content = FILES[name]
    picture = open_picture(content)
    plain = {"unpacks": awkward.PNG, "nonsense": awkward.JPEG}  # what Pillow refuses, or warns of
    image: Image.Image = Image.open(io.BytesIO(next((like for word, like in plain.items() if word in name), content)))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("L" if picture.grey else "RGB")
    expected = np.asarray(ImageOps.exif_transpose(image) if name in awkward.TURNED else image)
    assert (picture.height, picture.width) == expected.shape[:2]
    found = decode_image(content, None)
    assert np.array_equal(found, expected[None] if picture.grey else expected.transpose(2, 0, 1))


@pytest.mark.parametrize("name", awkward.CORRUPT)
def test_corrupt_files_are_rejected(name: str) -> None:
    with pytest.raises(TooLarge if name in awkward.TOO_LARGE else Exception) as caught:
        decode_image(awkward.CORRUPT[name], None)
    assert isinstance(caught.value, ValueError | OSError | UserWarning), repr(caught.value)


@pytest.mark.parametrize("part", [0.001, 0.3, 0.9, 0.99])
@pytest.mark.parametrize(
    "kind", ["420", "progressive", "grey jpeg", "cmyk", "png", "grey png", "palette", "bmp", "webp"]
)
def test_what_is_cut_off_is_rejected(kind: str, part: float) -> None:
    content = awkward.INTACT[kind]
    with pytest.raises((ValueError, OSError)):
        decode_image(content[: int(len(content) * part)], None)


@pytest.mark.parametrize("kind", ["420", "cmyk", "png", "palette", "bmp", "webp", "tiff", "gif"])
def test_the_limit_of_pixels_is_that_of_the_caller(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # a setting of the process, which has no say
    content = awkward.INTACT[kind]
    assert decode_image(content, None, max_pixels=61 * 83).shape == (3, 61, 83)
    with pytest.raises(TooLarge, match=r"83×61 pixels are more than 5,062, the limit \(max_pixels\)"):
        decode_image(content, None, max_pixels=61 * 83 - 1)


@pytest.mark.parametrize("ending", ["jp2", "j2k"])
def test_a_jpeg_2000_is_refused_with_what_to_type(tmp_path: Path, ending: str) -> None:
    photo().save(tmp_path / f"a.{ending}")
    with pytest.raises(ValueError, match=r"a JPEG 2000 is not decoded; magick in\.jp2 out\.png"):
        decode_image((tmp_path / f"a.{ending}").read_bytes(), None)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("factor", [1, 4])
def test_a_part_of_a_turned_picture_is_that_of_the_upright_one(orientation: int, factor: int) -> None:
    size = (64 * factor, 96 * factor)
    content = awkward.turned("JPEG", orientation, size=size, quality=95, subsampling=0)
    picture = open_picture(content)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert (picture.width, picture.height) == upright.size
    box = Box(8 * factor, 16 * factor, 32 * factor, 24 * factor)
    found = resize_region(picture.decode_pixels(3), box, (32, 24)).astype(int)
    part = upright.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    expected = np.asarray(part.resize((24, 32), Image.Resampling.BOX)).astype(int)
    assert np.abs(found - expected).mean() < (0.1 if factor == 1 else 3)


def test_two_pictures_in_a_row_do_not_share_memory() -> None:
    first = decode_image(KINDS["420"], None)
    copy = first.copy()
    decode_image(encoded(photo().rotate(180), "JPEG"), None)
    assert np.array_equal(first, copy)


@pytest.mark.parametrize("kind", ["420", "grey jpeg", "png", "grey png", "palette"])
@pytest.mark.parametrize("size", [(32, 32), (20, 50), (61, 61), (100, 100)])
@pytest.mark.parametrize("box", [Box(5, 7, 40, 60), Box(9, 0, 45, 83), Box(0, 0, 61, 83)])
def test_a_part_is_resized_as_pil_does_it(kind: str, size: tuple[int, int], box: Box) -> None:
    picture = open_picture(KINDS[kind])
    channels = 1 if picture.grey else 3
    image = (
        Image.open(io.BytesIO(KINDS[kind]))
        .convert("L" if channels == 1 else "RGB")
        .crop((box.left, box.top, box.left + box.width, box.top + box.height))
    )
    expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(*size, channels)
    assert np.abs(resize_region(picture.decode_pixels(channels), box, size).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [32, 64, 128, 224])
@pytest.mark.parametrize("odd", [0, 3])
def test_a_large_photograph_is_resized_from_all_of_its_pixels(size: int, odd: int) -> None:
    """As Pillow does it, antialiased: a decoder that leaves fine frequencies out is several levels off."""
    height, width = 300 + odd, 512 + odd
    content = encoded(photo(height, width, zoom=4), "JPEG", quality=95)
    box = Box(16 + odd, 24 + odd, 280, 280)
    found = decode_image(content, (size, size), choose=lambda *_: box).transpose(1, 2, 0).astype(int)
    part = Image.open(io.BytesIO(content)).crop((box.left, box.top, box.left + box.width, box.top + box.height))
    expected = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(found - expected).max() <= 2
    assert np.abs(found - expected).mean() < 0.1


@pytest.mark.parametrize(
    ("height", "width", "size", "box"),
    [
        (10, 10, (5, 5), (0, 0, 10, 10)),
        (10, 15, (5, 5), (0, 2, 10, 10)),
        (15, 10, (5, 5), (2, 0, 10, 10)),
        (10, 10, (5, 10), (2, 0, 5, 10)),
        (1, 1000, (224, 224), (0, 499, 1, 1)),
        (1, 7, (7, 1), (0, 3, 1, 1)),
    ],
)
def test_the_middle(height: int, width: int, size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert find_middle_box(height, width, size) == box


@pytest.mark.parametrize("name", KINDS)
def test_one_channel_of_any_picture(name: str) -> None:
    picture = open_picture(KINDS[name])
    pixels = picture.decode_pixels(1)
    assert pixels.shape == (picture.height, picture.width, 1)
