"""Images of a page in few bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from mlscale.report.contact_sheet import Tile, list_mask_colours, render_class_mask
from mlscale.report.image_grid import build_image_grid


@pytest.mark.parametrize(("side", "form"), [(8, "PNG"), (300, "WEBP")])
def test_a_small_image_is_exact_and_a_large_one_is_compressed(side: int, form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)  # noise: the worst case
    (tile,) = build_image_grid("a", [Tile([pixels], "title", "text", wrong=False)], 6_000).tiles
    assert len(tile.images[0]) <= 6_000
    with Image.open(io.BytesIO(tile.images[0])) as image:
        assert image.format == form
        assert (np.asarray(image).tobytes() == pixels.tobytes()) is (form == "PNG")


def test_a_legend_has_the_colours_of_the_masks() -> None:
    mask = np.array([[0, 1, 12, 255]], np.uint8)
    names, colours = zip(*list_mask_colours([mask, mask[:, :2]], ["sky", "road"]), strict=True)
    assert names == ("sky", "road", "12", "ignored")
    assert [bytes.fromhex(colour[1:]) for colour in colours] == [bytes(pixel) for pixel in render_class_mask(mask)[0]]
