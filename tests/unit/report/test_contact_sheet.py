"""The contact sheet of images, in few bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from mlscale.report.contact_sheet import Tile, build_contact_sheet, list_mask_colours, render_class_mask


@pytest.mark.parametrize(("max_bytes", "form"), [(10_000_000, "PNG"), (60_000, "WEBP")])
def test_a_sheet_that_would_be_large_is_compressed(max_bytes: int, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 116, 116, 3), dtype=np.uint8)  # the worst case
    sheet = build_contact_sheet("a", [Tile([pixels], "title", "text") for pixels in noise], "alt", max_bytes=max_bytes)
    assert len(sheet.png) <= max_bytes
    with Image.open(io.BytesIO(sheet.png)) as image:
        assert (image.format, image.width) == (form, 2 * sheet.width)


def test_a_legend_has_the_colours_of_the_masks() -> None:
    mask = np.array([[0, 1, 12, 255]], np.uint8)
    names, colours = zip(*list_mask_colours([mask, mask[:, :2]], ["sky", "road"]), strict=True)
    assert names == ("sky", "road", "12", "ignored")
    assert [bytes.fromhex(colour[1:]) for colour in colours] == [bytes(pixel) for pixel in render_class_mask(mask)[0]]
