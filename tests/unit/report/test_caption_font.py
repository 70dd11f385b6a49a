"""Captions of contact sheets have a glyph for each character, or a question mark."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from mlscale.report import caption_font
from mlscale.report.caption_font import choose_caption_font
from mlscale.report.contact_sheet import Tile, draw_contact_sheet


def draw(title: str) -> Image.Image:
    tile = Tile([np.zeros((8, 8), np.uint8)], title, "", wrong=False)
    return Image.open(io.BytesIO(draw_contact_sheet([tile])[0])).convert("RGB")


def test_ascii_has_the_same_font_everywhere() -> None:
    assert choose_caption_font(["cats", "dogs 3/4 (50%)"], 26).font.getname() == ("Aileron", "Regular")  # type: ignore[union-attr]


TEXTS = ["Straße über żółw", "κύμα", "море"]


def test_words_of_other_languages_are_drawn_by_a_font_of_the_system() -> None:
    chosen = choose_caption_font(TEXTS, 26)
    if not any(map(is_here, ("DejaVuSans.ttf", "LiberationSans-Regular.ttf"))):
        # Pillow's own has a part of them.
        assert 0 < chosen.count_missing() <= len(set("".join(TEXTS)))
        return
    assert chosen.count_missing() == 0
    assert [*map(chosen.replace_missing, TEXTS)] == TEXTS
    # With one glyph for all that is missing these would look alike.
    assert draw("ü").tobytes() != draw("ß").tobytes()


def test_a_machine_without_fonts_has_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_font, "SYSTEM_FONTS", ())
    chosen = choose_caption_font(TEXTS, 26)
    assert chosen.count_missing() > 0
    assert "?" in chosen.replace_missing("море")


def is_here(name: str) -> bool:
    try:
        return bool(ImageFont.truetype(name, 26))
    except OSError:
        return False


def test_what_no_font_has_is_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_font, "SYSTEM_FONTS", ("not-a-font.ttf",))
    chosen = choose_caption_font(["日本 cat\n"], 26)
    assert chosen.replace_missing("日本 cat\n") == "?? cat "
