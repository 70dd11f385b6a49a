"""Draw a contact sheet: images of the worst mistakes of a model, each with its label and prediction."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.report.blocks import ImageBlock

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

_TILE, _GAP, _TEXT, _ACROSS = 116, 10, 34, 7
_PAPER, _INK, _QUIET, _BAD = (255, 255, 255), (27, 31, 36), (86, 94, 104), (171, 31, 31)
_PALETTE = (
    (0, 0, 0), (214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 127, 14), (148, 103, 189), (140, 86, 75),
    (227, 119, 194), (188, 189, 34), (23, 190, 207), (127, 127, 127),
)  # fmt: skip
_IGNORED = 255


@dataclass(frozen=True, eq=False)
class Tile:
    """A sample of the sheet.

    Attributes:
        images: in one row, uint8 (h, w) or (h, w, 3) each.
        title: the first line, its label.
        text: the second line, its prediction.
        wrong: True to highlight the second line.
    """

    images: Sequence[NDArray[np.uint8]]
    title: str
    text: str
    wrong: bool = True


def build_contact_sheet(
    title: str,
    tiles: Sequence[Tile],
    alt: str,
    legend: Sequence[tuple[str, str]] = (),
    max_bytes: float = math.inf,
) -> ImageBlock:
    """Return the sheet with its title, text alternative, and names and colours of classes in masks.

    Args:
        max_bytes: about, from which on it is WebP and no PNG, as of photos.
    """
    content, width = draw_contact_sheet(tiles)
    for quality in (80, 50, 25):
        if len(content) <= max_bytes:
            break
        content = draw_contact_sheet(tiles, quality)[0]
    return ImageBlock(title, content, width, alt, legend)


def draw_contact_sheet(tiles: Sequence[Tile], webp_quality: int | None = None) -> tuple[bytes, int]:
    """Return the sheet as PNG or WebP, and the width at which it is to be shown, in pixels: it is drawn at twice that
    size.

    Small images are enlarged without smoothing, so that each pixel is a square.
    """
    from PIL import Image, ImageDraw

    scale = 2
    images_per_tile = max(len(tile.images) for tile in tiles)
    across = max(1, min(len(tiles), _ACROSS // images_per_tile if images_per_tile > 1 else _ACROSS))
    wide = _TILE * images_per_tile + 4 * (images_per_tile - 1)
    down = -(-len(tiles) // across)
    width, height = across * (wide + _GAP) + _GAP, down * (_TILE + _TEXT + _GAP) + _GAP
    canvas = Image.new("RGB", (width * scale, height * scale), _PAPER)
    draw = ImageDraw.Draw(canvas)
    font = _load_font(13 * scale)
    for number, tile in enumerate(tiles):
        left, top = _GAP + number % across * (wide + _GAP), _GAP + number // across * (_TILE + _TEXT + _GAP)
        for position, pixels in enumerate(tile.images):
            canvas.paste(_fit_square(pixels, _TILE * scale), ((left + position * (_TILE + 4)) * scale, top * scale))
        below = (top + _TILE + 2) * scale
        draw.text((left * scale, below), _cut_line(draw, tile.title, font, wide * scale), _INK, font)
        draw.text(
            (left * scale, below + 16 * scale),
            _cut_line(draw, tile.text, font, wide * scale),
            _BAD if tile.wrong else _QUIET,
            font,
        )
    file = io.BytesIO()
    if webp_quality is not None:
        canvas.save(file, "WEBP", quality=webp_quality)
    else:
        # Grey images and the texts need few colours: a palette makes the file smaller.
        sheet = canvas.quantize(256) if images_per_tile == 1 and _is_grey(tiles) else canvas
        sheet.save(file, "PNG", optimize=True)
    return file.getvalue(), width


def convert_to_image(x: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pixels (c, h, w) as an image, uint8: values in 0 to 255 unchanged, others scaled to that range."""
    values = np.nan_to_num(np.asarray(x, np.float64))
    low, high = float(values.min()), float(values.max())
    # A maximum of 1.5 or less means pixels in 0 to 1; a negative minimum means normalised ones.
    if not (low >= -0.5 and 1.5 < high <= 255.5):
        values = (values - low) / ((high - low) or 1) * 255
    pixels: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, 0]


def render_class_mask(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return class numbers (h, w) as colours (h, w, 3), uint8: class 0 black, ignored pixels (255) grey."""
    table = np.array([_choose_colour(number) for number in range(256)], np.uint8)
    coloured: NDArray[np.uint8] = table[classes]
    return coloured


def list_mask_colours(masks: Iterable[NDArray[Any]], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the name and the colour of each class that masks (h, w) have, for a legend: `("road", "#1f77b4")`.

    Args:
        masks: class numbers, 255 for ignored pixels.
        names: of the classes by number; the number stands for one that has none.
    """
    present = sorted({int(number) for mask in masks for number in np.unique(mask)})
    shown = {number: names[number] if number < len(names) else str(number) for number in present} | (
        {_IGNORED: "ignored"} if _IGNORED in present else {}
    )
    return [(name, "#{:02x}{:02x}{:02x}".format(*_choose_colour(number))) for number, name in shown.items()]


def _choose_colour(number: int) -> tuple[int, int, int]:
    if number == _IGNORED:
        return (230, 230, 230)
    return _PALETTE[1 + (number - 1) % (len(_PALETTE) - 1)] if number else _PALETTE[0]


def _fit_square(pixels: NDArray[np.uint8], side: int) -> Any:
    """Return the image scaled to fit a square, with its aspect ratio."""
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    method = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS
    square = Image.new("RGB", (side, side), (238, 240, 243))
    square.paste(image.resize(size, method), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the system's font of most languages, or Pillow's own, which has Latin letters alone."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _is_grey(tiles: Sequence[Tile]) -> bool:
    return all(image.ndim == 2 for tile in tiles for image in tile.images)


def _cut_line(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, max_width: float
) -> str:
    """Return a text as one line, cut to a width in pixels."""
    text = " ".join(text.split())
    if draw.textlength(text, font) <= max_width:
        return text
    while text and draw.textlength(text + "…", font) > max_width:
        text = text[:-1]
    return text + "…"
