"""A font for captions in any language: Pillow's own has ASCII alone, so fonts of the system are tried after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SYSTEM_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf", "arial.ttf", "msyh.ttc",
)  # fmt: skip
"""By file name, which Pillow looks for where Linux, macOS and Windows have their fonts."""
_NO_CHARACTER = "\U0010ffff"
"""Is in no font: it is drawn as every character is that a font lacks."""
UNKNOWN = "?"


class CaptionFont:
    """A font and the characters of the captions that it lacks.

    Attributes:
        font: of Pillow.
    """

    def __init__(self, font: Font, characters: Iterable[str]) -> None:
        self.font = font
        missing = _draw_character(font, _NO_CHARACTER)
        self._lacks = {character for character in characters if _draw_character(font, character) == missing}

    def count_missing(self) -> int:
        """Return the number of different characters that it lacks."""
        return len(self._lacks)

    def replace_missing(self, text: str) -> str:
        """Return a caption with a question mark for each character that can't be drawn or is none to see."""
        visible = (character if character.isprintable() else " " for character in text)
        return "".join(UNKNOWN if character in self._lacks else character for character in visible)


def choose_caption_font(texts: Iterable[str], size: int) -> CaptionFont:
    """Return the first font that has all characters of the captions, or else the one that lacks the fewest.

    Args:
        texts: the captions.
        size: of the font, in pixels.
    """
    characters = sorted({character for text in texts for character in text if character.isprintable()} - {" "})
    best = None
    # Pillow's own first, so that captions in ASCII look the same on every machine.
    for font in _iterate_fonts(size):
        candidate = CaptionFont(font, characters)
        if best is None or candidate.count_missing() < best.count_missing():
            best = candidate
        if not best.count_missing():
            break
    assert best is not None  # Pillow has one font at least
    return best


def _iterate_fonts(size: int) -> Iterator[Font]:
    from PIL import ImageFont

    yield ImageFont.load_default(size)
    for name in SYSTEM_FONTS:
        try:
            yield ImageFont.truetype(name, size)
        except OSError:
            # Not on this machine: none of them has to be.
            continue


def _draw_character(font: Font, character: str) -> bytes:
    return bytes(font.getmask(character))
