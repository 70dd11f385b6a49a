"""The journal: whole lines, whatever was killed when."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.retrain.journal import RetrainingCycle, RetrainingJournal, locate_watch_state
from mlscale.runs.identity import get_current_time
from tests.contract.test_documents import EXAMPLES, read, validate


@pytest.fixture
def journal(tmp_path: Path) -> RetrainingJournal:
    return RetrainingJournal(tmp_path, "resnet")


def ended(turn: RetrainingCycle, decision: str = "rejected") -> RetrainingCycle:
    return replace(
        turn, ended=get_current_time(), decision=decision, reason="why", figures={"p": float("nan"), "x_ms": 1.5}
    )


def test_a_turn_is_written_and_read_back(journal: RetrainingJournal) -> None:
    with journal.lock_journal():
        first = journal.begin_cycle("resnet:v1")
        validate("turn", read(journal.get_cycle_folder(first) / "turn.json"))
        assert journal.read_cycles() == []
        run = {"id": "x", "path": "/x"}
        journal.record_cycle(ended(replace(first, run=run, window={"since": "", "samples": 3})), keep=True)
        journal.record_cycle(ended(journal.begin_cycle("resnet:v1"), "too few"), keep=False)
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    for line in lines:
        validate("turn", line)
    found = journal.read_cycles()
    assert [turn.decision for turn in found] == ["rejected", "too few"]
    assert found[0].figures == {"p": None, "x_ms": 1.5}
    assert [turn.build_journal_record() for turn in found] == lines
    assert [path.name for path in journal.folder.iterdir() if path.is_dir()] == [first.id]


def test_the_stored_example_is_a_turn() -> None:
    (path,) = [path for path in EXAMPLES if path.stem == "turn-1"]
    turn = RetrainingCycle.parse_record(read(path), str(path))
    assert (turn.decision, turn.challenger, turn.window["held_out"]) == ("promoted", "digits:v2", 154)
    assert turn.build_journal_record() == read(path)


def test_a_line_that_was_cut_short_harms_no_other(journal: RetrainingJournal) -> None:
    with journal.lock_journal():
        journal.record_cycle(ended(journal.begin_cycle("resnet:v1")), keep=False)
        whole = journal.path.read_bytes()
        journal.path.write_bytes(whole + whole[:80])
        assert len(journal.read_cycles()) == 1
        journal.record_cycle(ended(journal.begin_cycle("resnet:v1")), keep=False)
    assert len(journal.read_cycles()) == 2
    assert journal.path.read_bytes().startswith(whole)


def test_a_damaged_or_later_line_is_reported(journal: RetrainingJournal) -> None:
    journal.path.parent.mkdir(parents=True)
    journal.path.write_text('{"format": "mlscale/turn/1"}\n')
    with pytest.raises(MLScaleError, match="corrupt") as caught:
        journal.read_cycles()
    assert caught.value.where == f"{journal.path}, line 1"
    journal.path.write_text('{"format": "mlscale/turn/2"}\n')
    with pytest.raises(MLScaleError, match="later mlscale"):
        journal.read_cycles()


def test_one_at_a_time(journal: RetrainingJournal) -> None:
    with (
        journal.lock_journal(),
        pytest.raises(MLScaleError, match="another process is retraining resnet"),
        journal.lock_journal(),
    ):
        pass
    with journal.lock_journal():
        pass


@pytest.mark.parametrize(
    ("challenger", "decision", "kept"),
    [(None, "interrupted", False), ("resnet:v2", "interrupted", True), ("resnet:v3", "promoted", True)],
)
def test_a_killed_turn_gets_its_line(
    journal: RetrainingJournal, challenger: str | None, decision: str, kept: bool
) -> None:
    with journal.lock_journal():
        turn = journal.begin_cycle("resnet:v1")
        run = {"id": "x", "path": "/x"} if challenger else None
        journal.save_progress(replace(turn, challenger=challenger, run=run))
        (journal.folder / ".aside-left").mkdir()
        (journal.folder / "nothing").mkdir()  # it did not come to a record
    with journal.lock_journal():
        (found,) = journal.recover_cycles(lambda turn: turn.challenger == "resnet:v3")
        assert journal.recover_cycles(lambda turn: turn.challenger == "resnet:v3") == []
    assert (found.id, found.decision) == (turn.id, decision)
    assert found.reason == ("all gates passed" if decision == "promoted" else "the process was killed")
    assert found.ended >= found.begun
    assert journal.read_cycles() == [found]
    assert [path.name for path in journal.folder.iterdir() if path.is_dir()] == [turn.id] * kept


def test_a_decision_that_had_no_line_yet_is_not_made_anew(journal: RetrainingJournal) -> None:
    with journal.lock_journal():
        turn = ended(journal.begin_cycle("resnet:v1"))
        journal.save_progress(turn)
        (found,) = journal.recover_cycles(lambda turn: False)
    assert (found.decision, found.reason) == ("rejected", "why")


def test_what_was_left_of_a_turn_that_made_nothing_goes(journal: RetrainingJournal) -> None:
    with journal.lock_journal():
        turn = journal.begin_cycle("resnet:v1")
        journal.record_cycle(ended(turn, "failed"), keep=True)  # killed before the folder was removed
        assert journal.recover_cycles(lambda turn: False) == []
    assert not journal.get_cycle_folder(turn).exists()


def test_a_killed_turn_may_be_continued(journal: RetrainingJournal) -> None:
    with journal.lock_journal():
        first, second = journal.begin_cycle("resnet:v1"), journal.begin_cycle("resnet:v1")
        journal.record_cycle(ended(journal.begin_cycle("resnet:v1"), "too few"), keep=False)
        (journal.folder / "0broken00000").mkdir()
        assert [turn.id for turn in journal.read_killed_cycles()] == [first.id, second.id]
        recovered = journal.recover_cycles(lambda _: False, without=second.id)
        assert [turn.id for turn in recovered] == [first.id]
        assert journal.get_cycle_folder(second).is_dir()
        assert not (journal.folder / "0broken00000").exists()
        assert [turn.id for turn in journal.read_killed_cycles()] == [second.id]
        journal.record_cycle(ended(second), keep=False)
    assert [turn.decision for turn in journal.read_cycles()] == ["too few", "interrupted", "rejected"]


def test_a_discarded_turn_leaves_nothing(journal: RetrainingJournal) -> None:
    with journal.lock_journal():
        turn = journal.begin_cycle("resnet:v1")
        journal.discard_cycle(turn)
        assert not journal.get_cycle_folder(turn).exists()
        assert journal.recover_cycles(lambda _: False) == []
    assert journal.read_cycles() == []


def test_a_decision_is_in_the_folder_before_it_is_in_the_journal(
    journal: RetrainingJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_killed(path: Path, line: str) -> None:
        raise KeyboardInterrupt

    with journal.lock_journal():
        turn = ended(journal.begin_cycle("resnet:v1"))
        with monkeypatch.context() as patched:
            patched.setattr("mlscale.retrain.journal.append_line", be_killed)
            with pytest.raises(KeyboardInterrupt):
                journal.record_cycle(turn, keep=True)
        (found,) = journal.recover_cycles(lambda _: False)
    assert (found.decision, found.reason) == ("rejected", "why")


def test_names_that_are_not_ascii_stay_readable_and_other_bytes_harm_no_line(journal: RetrainingJournal) -> None:
    with journal.lock_journal():
        journal.record_cycle(replace(ended(journal.begin_cycle("resnet:v1")), reason="größer"), keep=False)
    assert "größer".encode() in journal.path.read_bytes()
    with journal.path.open("ab") as file:
        file.write(b'"\xff\xfe\n')
    assert [turn.reason for turn in journal.read_cycles()] == ["größer"]


def test_files_in_the_folder_are_not_turns(journal: RetrainingJournal) -> None:
    with journal.lock_journal():
        (journal.folder / "notes.txt").write_text("mine")
        turn = journal.begin_cycle("resnet:v1")
        journal.record_cycle(ended(turn), keep=True)
        assert journal.read_killed_cycles() == []
    assert (journal.folder / "notes.txt").read_text() == "mine"


def test_the_state_of_the_watch_is_next_to_the_journal(journal: RetrainingJournal, tmp_path: Path) -> None:
    assert locate_watch_state(tmp_path, "resnet") == journal.path.with_name("resnet.watch.json")
