"""Lines that fit a terminal, and colours."""

import io

import pytest

from mlscale.cli import main
from mlscale.commands import COMMANDS
from mlscale.report.terminal import paint, wrap_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("line", "wrapped"),
    [
        ("name  one two three four five six seven", ["name  one two three four five six", "      seven"]),
        ("  a=1  # one two three four five six seven", ["  a=1  # one two three four five six", "       # seven"]),
        ("usage: one two three four five six seven", ["usage: one two three four five six", "       seven"]),
        ("a command that is long=123456  # what is it", ["a command that is long=123456", "    # what is it"]),
        ("/a/path/that/is/longer/than/the/terminal", ["/a/path/that/is/longer/than/the/terminal"]),
    ],
)
def test_the_last_column_is_continued_below_itself(line: str, wrapped: list[str]) -> None:
    assert wrap_text(line, 36).split("\n") == wrapped
    assert wrap_text(line, 100) == line


@pytest.mark.parametrize(
    ("stream", "environment", "is_painted"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, environment: dict[str, str], is_painted: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert paint("no", "red", stream) == ("\033[31mno\033[0m" if is_painted else "no")


def test_every_help_text_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = [["--help"], *([name, "--help"] for name in COMMANDS)]
    words += [[name, action, "--help"] for name, command in COMMANDS.items() for action in command.actions if action]
    for typed in words:
        assert main(typed) == 0
        too_long = [line for line in capsys.readouterr().out.splitlines() if len(line) > 80]
        # A command that is to be copied stays in one line.
        assert [line for line in too_long if not line.startswith("  mlscale ")] == [], typed
