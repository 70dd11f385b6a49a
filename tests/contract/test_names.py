"""The measures of names, docstrings and words: what they count, and when `--check` fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts import measure_names
from scripts.measure_names import MEASURES, begins_with_verb, main
from scripts.measured_code import Code, read_code
from scripts.user_texts import EXCEPTIONS

SOURCE = '''"""What a module holds."""
from typing import Any


class Reader:
    """A reader."""

    # A reason, which takes
    # two lines.
    def __init__(self, path: Any, text: list[Any]) -> None:
        self.kept = path  # noqa: S101

    @property
    def story(self) -> str:
        return "the verb is told"

    def read_rows(self) -> int:
        """Return the rows."""
        found = 1
        return found

    def is_complete(self) -> bool:
        return True

    def on_train_start(self) -> None: ...

    def _result(self) -> int:
        return 1
'''


@pytest.fixture
def code(tmp_path: Path) -> Code:
    """Two modules of one name, each with a class of one name."""
    for package in ("a", "b"):
        (tmp_path / "mlscale" / package).mkdir(parents=True)
        (tmp_path / "mlscale" / package / "reading.py").write_text(SOURCE)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("A headspace, and `headspace` as the name of a key.\n")
    return read_code(tmp_path)


def test_each_measure_counts_what_it_says(code: Code) -> None:
    found = {measure.key: round(measure.of(code).value, 2) for measure in MEASURES}
    assert found["verbs"] == 50, "read_rows and _result; is_complete is a question, the hook is Lightning's name"
    assert found["words"] == pytest.approx((2 + 2 + 1) / 3, abs=0.01)
    assert found["docstrings"] == pytest.approx(100 / 3, abs=0.01)
    assert (found["classes"], found["modules"], found["any"]) == (1, 1, 50)
    assert found["comments"] == pytest.approx(100 * 2 / 15, abs=0.01)


def test_banned_words_are_found_in_names_and_in_prose_but_not_in_quoted_names(code: Code) -> None:
    by_key = {measure.key: [str(place) for place in measure.of(code).places] for measure in MEASURES}
    names = sorted(line.removeprefix("mlscale/a/") for line in by_key["banned-names"] if "mlscale/a/" in line)
    assert names == ["reading.py:11: kept -> saved", "reading.py:14: story -> steps", "reading.py:19: found -> result"]
    (page,) = [line for line in by_key["banned-texts"] if line.startswith("docs/page.md:1")]
    assert page.startswith("docs/page.md:1: headspace -> headroom")
    assert len(by_key["banned-texts"]) == 5  # `verb` and `told` of two modules


@pytest.mark.parametrize(
    ("name", "nothing", "is_verb"),
    [("read_rows", False, True), ("result", False, False), ("record", True, True), ("record", False, False)],
)
def test_a_verb_that_is_a_noun_as_well_counts_where_its_function_returns_nothing(
    name: str, nothing: bool, is_verb: bool
) -> None:
    assert begins_with_verb(name, nothing) is is_verb


def test_check_fails_below_a_floor_and_names_the_measure(
    code: Code, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_names, "ROOT", code.root)
    easy = tuple(replace(measure, floor=0 if measure.rising else 100) for measure in MEASURES)
    monkeypatch.setattr(measure_names, "MEASURES", easy)
    assert main(["--check"]) == 0
    monkeypatch.setattr(measure_names, "MEASURES", (replace(easy[0], floor=51), *easy[1:]))
    assert main([]) == 0
    assert main(["--check"]) == 1
    assert "50.0 is worse than the floor of 51; python -m scripts.measure_names --list verbs" in capsys.readouterr().err
    assert main(["--list", "verbs", "mlscale/b"]) == 0
    assert capsys.readouterr().out == "mlscale/b/reading.py:27: result\n"


def test_exceptions_are_few_and_have_a_reason() -> None:
    assert len(EXCEPTIONS) <= 20
    assert all(why for *_, why in EXCEPTIONS)
