"""The journal: whole lines, whatever was killed when."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.retrain.journal import Journal, Turn
from mlscale.runs.identity import now
from tests.contract.test_documents import EXAMPLES, read, validate


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, "resnet")


def ended(turn: Turn, decision: str = "rejected") -> Turn:
    return replace(turn, ended=now(), decision=decision, reason="why", figures={"p": float("nan"), "x_ms": 1.5})


def test_a_turn_is_written_and_read_back(journal: Journal) -> None:
    with journal.alone():
        first = journal.begin("resnet:v1")
        validate("turn", read(journal.of(first) / "turn.json"))
        assert journal.turns() == []
        run = {"id": "x", "path": "/x"}
        journal.end(ended(replace(first, run=run, window={"since": "", "samples": 3})), keep=True)
        journal.end(ended(journal.begin("resnet:v1"), "too few"), keep=False)
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    for line in lines:
        validate("turn", line)
    found = journal.turns()
    assert [turn.decision for turn in found] == ["rejected", "too few"]
    assert found[0].figures == {"p": None, "x_ms": 1.5}
    assert [turn.document() for turn in found] == lines
    assert [path.name for path in journal.folder.iterdir() if path.is_dir()] == [first.id]


def test_the_stored_example_is_a_turn() -> None:
    (path,) = [path for path in EXAMPLES if path.stem == "turn-1"]
    turn = Turn.read(read(path), str(path))
    assert (turn.decision, turn.challenger, turn.window["held_out"]) == ("promoted", "digits:v2", 154)
    assert turn.document() == read(path)


def test_a_line_that_was_cut_short_harms_no_other(journal: Journal) -> None:
    with journal.alone():
        journal.end(ended(journal.begin("resnet:v1")), keep=False)
        whole = journal.path.read_bytes()
        journal.path.write_bytes(whole + whole[:80])
        assert len(journal.turns()) == 1
        journal.end(ended(journal.begin("resnet:v1")), keep=False)
    assert len(journal.turns()) == 2
    assert journal.path.read_bytes().startswith(whole)


def test_a_damaged_or_later_line_is_told(journal: Journal) -> None:
    journal.path.parent.mkdir(parents=True)
    journal.path.write_text('{"format": "mlscale/turn/1"}\n')
    with pytest.raises(MLScaleError, match="damaged") as caught:
        journal.turns()
    assert caught.value.where == f"{journal.path}, line 1"
    journal.path.write_text('{"format": "mlscale/turn/2"}\n')
    with pytest.raises(MLScaleError, match="later mlscale"):
        journal.turns()


def test_one_at_a_time(journal: Journal) -> None:
    with journal.alone(), pytest.raises(MLScaleError, match="another process is retraining resnet"), journal.alone():
        pass
    with journal.alone():
        pass


@pytest.mark.parametrize(
    ("challenger", "decision", "kept"),
    [(None, "interrupted", False), ("resnet:v2", "interrupted", True), ("resnet:v3", "promoted", True)],
)
def test_a_killed_turn_gets_its_line(journal: Journal, challenger: str | None, decision: str, kept: bool) -> None:
    with journal.alone():
        turn = journal.begin("resnet:v1")
        run = {"id": "x", "path": "/x"} if challenger else None
        journal.note(replace(turn, challenger=challenger, run=run))
        (journal.folder / ".aside-left").mkdir()
        (journal.folder / "nothing").mkdir()  # it did not come to a record
    with journal.alone():
        (found,) = journal.recover(lambda turn: turn.challenger == "resnet:v3")
        assert journal.recover(lambda turn: turn.challenger == "resnet:v3") == []
    assert (found.id, found.decision) == (turn.id, decision)
    assert journal.turns() == [found]
    assert [path.name for path in journal.folder.iterdir() if path.is_dir()] == [turn.id] * kept


def test_a_decision_that_had_no_line_yet_is_not_made_anew(journal: Journal) -> None:
    with journal.alone():
        turn = ended(journal.begin("resnet:v1"))
        journal.note(turn)
        (found,) = journal.recover(lambda turn: False)
    assert (found.decision, found.reason) == ("rejected", "why")


def test_what_was_left_of_a_turn_that_made_nothing_goes(journal: Journal) -> None:
    with journal.alone():
        turn = journal.begin("resnet:v1")
        journal.end(ended(turn, "failed"), keep=True)  # killed before the folder was removed
        assert journal.recover(lambda turn: False) == []
    assert not journal.of(turn).exists()
