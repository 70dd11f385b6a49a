"""Uploads of checkpoints in the background: the training never waits, and failures are repeated."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.remote_checkpoints.checkpoint_store import RemoteCheckpoint
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.checkpoint.failed_saves import guard_checkpoint_callbacks
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint.step_boundary import install_boundaries
from mlscale.train.checkpoint.uploader import CheckpointUploader, RetryWaits
from tests.unit.fitting import Loader, batches, classifier, trainer
from tests.unit.runs.remote_checkpoints.conftest import write_checkpoint, write_folder

QUICK = RetryWaits(first=0.001, longest=0.002, last_tries=3)


class SlowStore:
    """A store whose uploads wait until they are let through, and some of which fail."""

    address = "s3://bucket/run"

    def __init__(self) -> None:
        self.may_upload = threading.Event()
        self.failures = 0
        self.is_down = False
        self.calls: list[str] = []
        self.content: dict[str, bytes] = {}
        self.kept: list[RemoteCheckpoint] = []

    def put_checkpoint(self, name: str, path: Path) -> None:
        self.may_upload.wait(20)
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the cable is cut")
        file = path / "state.ckpt" if path.is_dir() else path
        self.content[name] = file.read_bytes()
        self.calls.append(f"put {name}")

    def remove_checkpoint(self, name: str) -> None:
        self.content.pop(name, None)
        self.calls.append(f"remove {name}")

    def list_checkpoints(self) -> list[RemoteCheckpoint]:
        if self.is_down:
            raise ConnectionError("the cable is cut")
        return self.kept

    def remove_incomplete(self) -> int:
        return 0


@pytest.fixture
def store() -> Iterator[SlowStore]:
    made = SlowStore()
    yield made
    made.may_upload.set()


def start(store: Any, folder: Path, **options: Any) -> CheckpointUploader:
    return CheckpointUploader(store, folder, QUICK, **options)


def test_the_newest_of_each_name_is_uploaded(store: SlowStore, tmp_path: Path) -> None:
    uploader = start(store, tmp_path)
    for step in range(1, 6):
        uploader.add_checkpoint(write_checkpoint(tmp_path / "last.ckpt", step))
    for step in (2, 4):
        uploader.add_checkpoint(write_folder(tmp_path / f"step={step}.ckpt", step))
    uploader.remove_checkpoint(tmp_path / "step=2.ckpt")
    newest = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").unlink()  # it may be replaced while it waits
    store.may_upload.set()
    assert uploader.close() == []
    assert store.content["last.ckpt"] == newest
    # The first may be in flight when the others come; removals are last.
    assert [call for call in store.calls if "last" in call] in (["put last.ckpt"], ["put last.ckpt"] * 2)
    assert store.calls[-2:] == ["put step=4.ckpt", "remove step=2.ckpt"]
    assert not list(tmp_path.glob(".*"))


def test_a_state_comes_after_the_best_that_it_counts_on(store: SlowStore, tmp_path: Path) -> None:
    """Also where a newer best has replaced that one, while it waited or while its upload failed."""
    store.failures = 1
    uploader = start(store, tmp_path)
    for name, step in (("best", 2), ("step=3", 3), ("best", 4), ("step=5", 5), ("best", 6)):
        uploader.add_checkpoint(write_checkpoint(tmp_path / f"{name}.ckpt", step))
    store.may_upload.set()
    assert uploader.close() == []
    assert store.calls == ["put best.ckpt", "put step=3.ckpt", "put step=5.ckpt"]


def test_what_fails_is_repeated_and_reported_once(
    store: SlowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.failures = 5
    store.may_upload.set()
    uploader = start(store, tmp_path)
    uploader.add_checkpoint(write_checkpoint(tmp_path / "last.ckpt", 1))
    while store.failures:
        pass
    assert uploader.close() == []
    printed = capsys.readouterr().err
    assert printed.count("last.ckpt was not uploaded to s3://bucket/run: ConnectionError: the cable is cut") == 1
    assert printed.count("s3://bucket/run is reached again") == 1


def test_the_end_waits_for_a_few_failures_and_not_for_more(
    store: SlowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.failures = 10**9
    store.may_upload.set()
    uploader = start(store, tmp_path)
    uploader.add_checkpoint(write_checkpoint(tmp_path / "last.ckpt", 1))
    assert uploader.close() == ["last.ckpt"]
    assert "not in s3://bucket/run: last.ckpt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_an_earlier_process_has_left_is_not_uploaded_where_the_store_is_down(
    store: SlowStore, tmp_path: Path
) -> None:
    store.is_down = True
    write_checkpoint(tmp_path / "last.ckpt", 1)
    assert start(store, tmp_path).close() == ["last.ckpt"]


def test_a_stop_does_not_wait_longer_than_it_may(store: SlowStore, tmp_path: Path) -> None:
    uploader = start(store, tmp_path, get_limit=lambda: 0.05)
    uploader.add_checkpoint(write_checkpoint(tmp_path / "last.ckpt", 1))
    assert uploader.close() == ["last.ckpt"]


@pytest.mark.parametrize("ahead", [False, True])
def test_the_next_attempt_does_what_a_killed_one_has_left(store: SlowStore, tmp_path: Path, ahead: bool) -> None:
    """Uploads what is here, and removes what is not; unless the folder was lost, and has an older one alone."""
    write_checkpoint(tmp_path / "last.ckpt", 8)
    (tmp_path / ".aside-upload-last.ckpt.1a2b").write_bytes(b"left by a killed process")
    old = CheckpointRecord("periodic", 9 if ahead else 4, 0, time="2026-11-30T05:00:00+00:00")
    store.kept = [RemoteCheckpoint("step=4.ckpt", old, "0" * 64, {})]
    store.may_upload.set()
    uploader = start(store, tmp_path)
    while store.calls[-1:] != (["put last.ckpt"] if ahead else ["remove step=4.ckpt"]):
        time.sleep(0.001)
    # Once the run has passed what the store had ahead, that is removed, too.
    uploader.add_checkpoint(write_checkpoint(tmp_path / "last.ckpt", 10))
    assert uploader.close() == []
    assert store.calls.count("remove step=4.ckpt") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_is_removed_while_it_is_copied_leaves_nothing(
    store: SlowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    saved, link = write_folder(tmp_path / "run/step=2.ckpt", 2), os.link

    def link_or_lose(source: str, target: str) -> None:
        if Path(source).name.startswith("__1") and saved.exists():
            saved.rename(tmp_path / "removed")
        link(source, target)

    monkeypatch.setattr(os, "link", link_or_lose)
    store.may_upload.set()
    assert start(store, tmp_path / "run").close() == []
    assert (tmp_path / "removed").exists()
    assert store.calls == []
    assert not list((tmp_path / "run").iterdir())


def test_a_state_is_in_the_store_before_the_one_that_it_replaces_is_removed(store: SlowStore, tmp_path: Path) -> None:
    store.may_upload.set()
    io = VerifiedCheckpointIO()
    io.uploader = start(store, tmp_path)
    periodic = Checkpoints(tmp_path, every_n_steps=1, save_last=False, save_top_k=0)
    run = trainer(enable_checkpointing=True, plugins=[io], callbacks=[periodic])
    guard_checkpoint_callbacks(run)
    install_boundaries(run)
    run.fit(classifier(), Loader(batches(8)), Loader(batches(1)))
    stored: set[str] = set()
    for call in store.calls:
        action, _, name = call.partition(" ")
        stored = stored | {name} if action == "put" else stored - {name}
        assert stored, store.calls
    assert stored == {"step=8.ckpt"}


def test_a_fit_goes_on_while_nothing_can_be_uploaded(store: SlowStore, tmp_path: Path) -> None:
    store.failures = 10**9
    store.may_upload.set()
    io = VerifiedCheckpointIO()
    io.uploader = start(store, tmp_path)
    run = trainer(enable_checkpointing=True, plugins=[io], callbacks=[Checkpoints(tmp_path, every_n_steps=2)])
    run.fit(classifier(), Loader(batches(5)), Loader(batches(1)))
    assert run.global_step == 5
    assert set(io.not_uploaded) == {path.name for path in tmp_path.glob("*.ckpt")}
    error = io.explain_lost_state()
    assert error is not None
    assert (error.exit, "mlscale runs resume last" in error.fix) == (5, True)
