"""The report of a tour's steps, and what can't work: it is refused before the first step, with what does."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlscale.assembly.ready import compose_from_overrides
from mlscale.commands.lifecycle.entry import Tour
from mlscale.commands.lifecycle.production import check_lifecycle
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.report import Result
from mlscale.runs.folder import RunFolder
from mlscale.secrets.mask import Masker


def tour(tmp_path: Path, *titles: str) -> Tour:
    return Tour(RunFolder.create(tmp_path, "x", command="lifecycle", config_yaml="a: 1"), titles, Masker())


def test_steps_are_reported_and_what_their_commands_print_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> Result:
        print("of the command")
        return Result("", True, "3 apples, all of them red", metrics={"apples": 3})

    going = tour(tmp_path, "pick", "wash")
    assert going.take_step(act)
    assert not going.take_step(lambda: Result("", False, "no water"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("[ 1/2] pick  3 apples, all of them red  (")
    assert err.splitlines()[1].startswith("[ 2/2] wash  STOP  no water  (")
    assert (going.folder.path / "logs/01-pick.log").read_text() == "of the command\n"
    assert going.metrics["apples"] == 3
    assert set(going.metrics) == {"apples", "pick_time_s", "wash_time_s"}


def test_a_step_that_raises_is_reported_and_what_follows_is_not_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> Result:
        raise MLScaleError("no ladder")

    going = tour(tmp_path, "pick", "wash")
    with pytest.raises(MLScaleError):
        going.take_step(act)
    assert "STOP  no ladder" in capsys.readouterr().err
    assert [(step.title, step.ok) for step in going.list_steps()] == [("pick", False), ("wash", None)]
    assert json.dumps(going.metrics)


def test_a_step_whose_line_nothing_reads_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going = tour(tmp_path, "pick", "wash")
    assert going.describe_end() == "stopped at the start"

    def refuse(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("mlscale.commands.lifecycle.entry.print_masked_lines", refuse)
    with pytest.raises(BrokenPipeError):
        going.take_step(lambda: Result("", True, "3 apples"))
    assert [(step.title, step.ok) for step in going.list_steps()] == [("pick", True), ("wash", None)]
    monkeypatch.undo()
    going.take_step(lambda: Result("", False, "no water"))
    assert going.describe_end() == "stopped at [2/2] wash: no water"


def test_of_several_problems_a_step_names_the_first(tmp_path: Path) -> None:
    def act() -> Result:
        raise_all([MLScaleError("no ladder"), MLScaleError("no basket"), MLScaleError("no tree")])
        return Result("", True, "")

    going = tour(tmp_path, "pick")
    with pytest.raises(MLScaleError, match="no tree"):
        going.take_step(act)
    assert going.list_steps()[0].sentence == "no ladder, and 2 more problems"


def check(*words: str) -> None:
    check_lifecycle(compose_from_overrides("lifecycle", words))


def refuse(*words: str) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        check(*words)
    assert caught.value.exit == Exit.USER
    return caught.value


@pytest.fixture
def table(tmp_path: Path) -> str:
    """400 rows of numbers alone."""
    values = np.random.default_rng(0).random((400, 2))
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b, "y": "no" if a < b else "yes"}) + "\n" for a, b in values))
    return str(path)


def test_rows_with_numbers(table: str) -> None:
    check("+recipe=tabular", "data=table", f"data.train={table}", "data.target=y")


def test_a_table_without_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"x{row % 3},z{row % 5},y{row % 2}\n" for row in range(400)))
    error = refuse("+recipe=tabular", "data=table", f"data.train={path}", "data.target=y")
    assert "rows with a column of numbers" in error.what


def test_texts_of_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain words, plain words\n" * 4000)
    check("+recipe=gpt", "data=text_files", f"data.train={tmp_path}", "data.length=64")


@pytest.mark.parametrize(
    ("words", "what"),
    [(("lifecycle.traffic=5",), "300 images"), (("registry=none",), "the tour needs a registry")],
)
def test_settings_that_make_no_sense(words: tuple[str, ...], what: str) -> None:
    assert what in refuse("+recipe=tabular", *words).what


def test_too_few_samples_for_a_retraining(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{row},{row % 7}.5\n" for row in range(100)))
    words = ("+recipe=regression", "data=table", f"data.train={path}", "data.target=y")
    assert "300 images, rows" in refuse(*words).what
