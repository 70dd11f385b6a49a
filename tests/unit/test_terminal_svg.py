"""The recorded terminal begins with a full screen."""

from scripts.terminal_svg import Frame, draw_cast


def test_the_picture_begins_when_the_screen_is_full() -> None:
    line = ((0, "error: unknown key", "#c8ccd8", False),)
    frames = [Frame((), 0.5), Frame((line, ()), 2.5), Frame((line, line), 0.7), Frame((line, line), 6.0)]
    assert "animation:9.70s step-end -3.71s infinite" in draw_cast(frames)
