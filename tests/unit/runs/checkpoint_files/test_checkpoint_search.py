"""Checkpoints are found by what their records say: the latest one, the best one, those of this run."""

import errno
import os
from pathlib import Path

import pytest
import torch

from mlscale.runs.checkpoint_files import checkpoint_search
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointFile, CheckpointRecord
from mlscale.runs.checkpoint_files.checkpoint_search import (
    find_best_checkpoint_file,
    find_latest_valid,
    find_nearest_checkpoint,
    list_checkpoint_files,
)
from tests.unit.runs.checkpoint_files.saved_checkpoints import flip, save


def test_latest_valid_goes_by_the_recorded_step(tmp_path: Path) -> None:
    for name, step in (("c", 10), ("a", 30), ("b", 20)):
        save(tmp_path / f"{name}.ckpt", step)
    assert [found.path.stem for found in list_checkpoint_files(tmp_path)] == ["c", "b", "a"]
    os.utime(tmp_path / "c.ckpt")  # the date says nothing
    assert find_latest_valid(tmp_path) == (tmp_path / "a.ckpt", [])
    flip(tmp_path / "a.ckpt", 9000)
    path, warnings = find_latest_valid(tmp_path)
    assert path == tmp_path / "b.ckpt"
    assert len(warnings) == 1
    assert "a.ckpt is left out: its content is not what was written" in warnings[0]
    os.truncate(tmp_path / "b.ckpt", 3000)
    path, warnings = find_latest_valid(tmp_path)
    assert path == tmp_path / "c.ckpt"
    assert sorted(warning.split(" is ")[0][-6:] for warning in warnings) == ["a.ckpt", "b.ckpt"]
    (tmp_path / "c.ckpt").unlink()
    assert find_latest_valid(tmp_path)[0] is None


def test_latest_valid_of_one_step_is_the_later_written(tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", 5, time="2026-01-01T00:00:02.000+00:00")
    save(tmp_path / "b.ckpt", 5, time="2026-01-01T00:00:01.000+00:00")
    assert find_latest_valid(tmp_path)[0] == tmp_path / "a.ckpt"


def test_weights_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    save(tmp_path / "full.ckpt", 1)
    save(tmp_path / "weights.ckpt", 2, resumable=False)
    assert find_latest_valid(tmp_path) == (tmp_path / "full.ckpt", [])


def test_files_that_are_being_written_and_folders_are_none(tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", 1)
    save(tmp_path / ".b.ckpt", 2)
    (tmp_path / "c.ckpt").mkdir()
    (tmp_path / "d.ckpt").write_bytes(b"of another program")
    assert [found.path.name for found in list_checkpoint_files(tmp_path)] == ["a.ckpt", "d.ckpt"]


def test_a_file_that_can_not_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step, name in enumerate(("a", "b", "c")):
        save(tmp_path / f"{name}.ckpt", step)

    def verify(path: Path) -> CheckpointFile:
        if path.name == "c.ckpt":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return verify_checkpoint(path)

    monkeypatch.setattr(checkpoint_search, "verify_checkpoint", verify)
    path, left_out = find_latest_valid(tmp_path)
    assert path == tmp_path / "b.ckpt"
    assert left_out == [f"{tmp_path / 'c.ckpt'} is left out: it can't be read (Input/output error)"]


def save_best(path: Path, value: float | None, metric: str = "loss") -> None:
    writer = AtomicCheckpointWriter(path)
    torch.save({}, writer)  # type: ignore[arg-type]
    writer.commit_checkpoint(CheckpointRecord("best", 1, 0, metric=metric, value=value))


def test_the_best_of_several_that_were_kept(tmp_path: Path) -> None:
    best, other = tmp_path / "best.ckpt", tmp_path / "best-1.ckpt"
    save_best(best, 0.3)
    save_best(tmp_path / "mine.ckpt", 0.1)
    save_best(tmp_path / "yours.ckpt", 0.9)
    # A user's callback may keep others by the same metric: alone, `best.ckpt` is what it is called.
    for mode in ("min", "max"):
        assert find_best_checkpoint_file(tmp_path, "loss", mode) == best
    save_best(other, 0.2)
    assert find_best_checkpoint_file(tmp_path, "loss", "min") == other
    assert find_best_checkpoint_file(tmp_path, "loss", "max") == best
    for value, metric in ((None, "loss"), (0.3, "accuracy")):
        save_best(best, value, metric)
        assert find_best_checkpoint_file(tmp_path, "loss", "min") == best
    best.unlink()
    assert find_best_checkpoint_file(tmp_path, "loss", "min") == tmp_path / "mine.ckpt"


def test_the_best_by_whatever_name(tmp_path: Path) -> None:
    for name, metric, value in (("a", "loss", 0.5), ("b", "loss", 0.2), ("c", "loss", 0.3), ("d", "other", 0.1)):
        writer = AtomicCheckpointWriter(tmp_path / f"{name}.ckpt")
        torch.save({}, writer)  # type: ignore[arg-type]
        writer.commit_checkpoint(CheckpointRecord("best", 1, 0, metric=metric, value=value))
    save(tmp_path / "last.ckpt", 1)
    assert find_best_checkpoint_file(tmp_path, "loss", "min") == tmp_path / "b.ckpt"
    assert find_best_checkpoint_file(tmp_path, "loss", "max") == tmp_path / "a.ckpt"
    assert find_best_checkpoint_file(tmp_path, "accuracy", "max") is None
    save(tmp_path / "best.ckpt", 1)
    assert find_best_checkpoint_file(tmp_path, "loss", "min") == tmp_path / "best.ckpt"


def test_a_checkpoint_of_another_run_is_left_out(tmp_path: Path) -> None:
    def of(name: str, step: int, run: str | None, config_hash: str | None = "abc") -> None:
        writer = AtomicCheckpointWriter(tmp_path / f"{name}.ckpt")
        torch.save({"step": step}, writer)  # type: ignore[arg-type]
        writer.commit_checkpoint(CheckpointRecord("last", step, 0, run=run, config_hash=config_hash))

    of("own", 3, "mine")
    of("theirs", 9, "other")
    of("changed", 8, "mine", "def")
    path, left_out = find_latest_valid(tmp_path, ("mine", "abc"))
    assert path == tmp_path / "own.ckpt"
    assert left_out == [
        f"{tmp_path / 'theirs.ckpt'} is left out: it is of the run other",
        f"{tmp_path / 'changed.ckpt'} is left out: it was saved with other settings",
    ]
    of("old", 10, None, None)  # of an earlier mlscale, which named no run
    assert find_latest_valid(tmp_path, ("mine", "abc")) == (tmp_path / "old.ckpt", [])


def test_an_empty_or_missing_folder(tmp_path: Path) -> None:
    assert find_latest_valid(tmp_path) == (None, [])
    assert find_latest_valid(tmp_path / "none") == (None, [])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("step=4000", "step=60"),
        ("step=51", "step=50"),
        ("best-epoch=0-step=1", "best-epoch=0-step=22"),
        ("lst", "last"),
    ],
)
def test_the_name_that_was_meant(typed: str, meant: str) -> None:
    assert find_nearest_checkpoint(typed, ["best-epoch=0-step=22", "last", "step=50", "step=60"]) == meant
    assert find_nearest_checkpoint("step=7", ["best", "last"]) is None
