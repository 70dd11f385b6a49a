"""Make a grid of images for a page: each of its own, in few bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlscale.report.blocks import GridTile, ImageGrid
from mlscale.report.contact_sheet import Tile

_SIDE = 228  # pixels of the longer side, at most: twice what a page shows, for displays of twice the resolution
# Sides and qualities of WebP, the first with which an image is small enough; noise is so at the last one only.
_REDUCTIONS = ((_SIDE, 80), (_SIDE, 50), (160, 40), (114, 25), (72, 10))


def build_image_grid(
    title: str, tiles: Sequence[Tile], max_bytes: int, legend: Sequence[tuple[str, str]] = ()
) -> ImageGrid:
    """Return the grid of samples.

    Args:
        title: above the grid.
        tiles: the samples, at least one.
        max_bytes: of all images together, about.
        legend: names and colours of classes in masks.
    """
    share = max_bytes // sum(len(tile.images) for tile in tiles)
    shown = [
        GridTile([_encode_image(image, share) for image in tile.images], tile.title, tile.text, tile.wrong)
        for tile in tiles
    ]
    return ImageGrid(title, shown, legend)


def _encode_image(pixels: NDArray[np.uint8], max_bytes: int) -> bytes:
    """Return the image as PNG, or as WebP where that would be too large, as of a photo."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    for side, quality in _REDUCTIONS:
        if len(file.getvalue()) <= max_bytes:
            break
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.convert("RGB").save(file, "WEBP", quality=quality)
    return file.getvalue()
