"""What a checkpoint says of itself, and what is reported where one can't be saved or used; without a fit."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import PicklingError
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.train.checkpoint.checkpoint_kind import build_checkpoint_record
from mlscale.train.checkpoint.lightning_io import FailedSave, VerifiedCheckpointIO
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file


def save(path: Path, content: object, **of: Any) -> Path:
    writer = AtomicCheckpointWriter(path)
    torch.save(content, writer)  # type: ignore[arg-type]  # a file is what writes
    writer.commit_checkpoint(CheckpointRecord(**{"kind": "last", "step": 1, "epoch": 0, **of}))
    return path


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let every flush to the disk fail."""

    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


def states(**of: object) -> dict[str, Any]:
    """The states of callbacks, of which one is a ModelCheckpoint."""
    return {"Other": {"best": 1}, "Odd": 3, "ModelCheckpoint": {"monitor": "loss", "best_k_models": {}, **of}}


@pytest.mark.parametrize(
    ("name", "of", "kind", "metric", "value"),
    [
        ("a.ckpt", {"best_k_models": {"F/a.ckpt": 0.5}, "last_model_path": "F/a.ckpt"}, "best", "loss", 0.5),
        ("a.ckpt", {"best_k_models": {"F/a.ckpt": torch.tensor(torch.inf)}}, "best", "loss", None),
        ("a.ckpt", {"best_k_models": {"F/a.ckpt": None}}, "best", "loss", None),
        ("b.ckpt", {"best_k_models": {"F/a.ckpt": 0.5}, "last_model_path": "F/b.ckpt"}, "last", None, None),
        ("b.ckpt", {"best_model_path": "F/b.ckpt", "last_model_path": "F/c.ckpt"}, "periodic", None, None),
        ("b.ckpt", {"best_model_path": "F/c.ckpt", "best_k_models": None}, "other", None, None),
        ("b.ckpt", {"best_model_path": "other/b.ckpt", "last_model_path": "other/b.ckpt"}, "other", None, None),
        ("last.ckpt", {}, "last", None, None),
        ("last-v1.ckpt", {}, "other", None, None),
        ("step=12.ckpt", {}, "periodic", None, None),
        ("step=12-v1.ckpt", {}, "other", None, None),
    ],
)  # fmt: skip
def test_the_kind_follows_from_the_callback_that_writes_it(
    tmp_path: Path, name: str, of: Mapping[str, Any], kind: str, metric: str | None, value: float | None
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "F").symlink_to("real")  # a folder by two names

    def place(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {place(key): number for key, number in entry.items()}
        return f"{tmp_path}/{entry}" if isinstance(entry, str) else entry

    callbacks = states(**{key: place(entry) for key, entry in of.items()})
    record = build_checkpoint_record({"callbacks": callbacks}, tmp_path / "real" / name)
    assert (record.kind, record.metric, record.value) == (kind, metric, value)


def test_the_first_callback_that_knows_it_decides(tmp_path: Path) -> None:
    path = str(tmp_path / "a.ckpt")
    two = {"A": {"best_k_models": {}}, "B": {"best_k_models": {path: 2.0}, "monitor": "m"}}
    record = build_checkpoint_record({"callbacks": two}, Path(path))
    assert (record.kind, record.metric, record.value) == ("best", "m", 2.0)


def test_counters_and_what_makes_it_resumable(tmp_path: Path) -> None:
    full = build_checkpoint_record({"global_step": 7, "epoch": 2, "optimizer_states": []}, tmp_path / "a.ckpt")
    assert (full.step, full.epoch, full.resumable) == (7, 2, True)
    weights = build_checkpoint_record({}, tmp_path / "a.ckpt")
    assert (weights.step, weights.epoch, weights.resumable, weights.kind) == (0, 0, False, "other")


def test_a_save_names_its_run(tmp_path: Path) -> None:
    io, path = VerifiedCheckpointIO("me", "hash"), tmp_path / "new" / "folder" / "a.ckpt"
    assert not io.unsaved
    io.save_checkpoint({"global_step": 3, "a": torch.ones(2)}, path)
    record = verify_checkpoint(path).record
    assert record is not None
    assert (record.run, record.config_hash, record.step) == ("me", "hash", 3)
    assert (io.unsaved, io.failed, io.explain_lost_state()) == (False, [], None)
    assert io.load_checkpoint(path)["a"].tolist() == [1, 1]
    with pytest.raises(TypeError, match="has no storage options"):
        io.save_checkpoint({}, tmp_path / "a.ckpt", storage_options={})


@pytest.mark.parametrize(
    ("failed", "saved", "what"),
    [
        (1, False, "its only save failed"),
        (1, True, "1 save failed"),
        (2, False, "2 saves failed"),
        (2, True, "2 saves"),
    ],
)
def test_a_lost_final_state_is_reported_with_what_is_left(tmp_path: Path, failed: int, saved: bool, what: str) -> None:
    io, path = VerifiedCheckpointIO(), str(tmp_path / "there" / "last.ckpt")
    if saved:
        io.save_checkpoint({"global_step": 5, "optimizer_states": []}, tmp_path / "there" / "early.ckpt")
    io.failed += [FailedSave(path, 1000 * (step + 1), "no space") for step in range(failed)]
    error = io.explain_lost_state()
    assert error is not None
    assert what in error.what
    assert f"the last one at step {failed},000" in error.what
    assert (error.where, error.why, error.exit) == (path, "no space", Exit.ENVIRONMENT)
    assert ("it resumes from early.ckpt" in error.fix) == saved
    assert ("starts over" in error.fix) != saved


def test_after_a_failed_save_nothing_is_removed_until_one_succeeds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    io, path = VerifiedCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"global_step": 1}, path)
    with monkeypatch.context() as patch:
        refuse(patch, errno.ENOSPC)
        io.save_checkpoint({"global_step": 2}, tmp_path / "b.ckpt")
    assert io.unsaved
    assert [(save.path, save.step) for save in io.failed] == [(str(tmp_path / "b.ckpt"), 2)]
    reported = capsys.readouterr().err
    assert f"warning   disk full: {tmp_path / 'b.ckpt'} was not saved at step 2" in reported
    assert "what was saved before stays: a.ckpt." in reported
    io.remove_checkpoint(path)
    assert path.exists()
    assert f"{path} stays: the save that was to replace it failed" in caplog.text
    io.save_checkpoint({"global_step": 3}, tmp_path / "c.ckpt")
    io.remove_checkpoint(path)
    assert not path.exists()


def test_an_error_that_is_not_of_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EIO)
    with pytest.raises(MLScaleError, match=r"can't write the checkpoint a\.ckpt") as caught:
        VerifiedCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt")
    assert (caught.value.where, caught.value.exit) == (str(tmp_path / "a.ckpt"), Exit.ENVIRONMENT)


def test_hyper_parameters_keep_what_is_plain_and_its_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "a": [1, (2.5, None)], "b": {"c": {"x": b"1"}}, "net": torch.nn.Linear(1, 1), "t": torch.ones(1),
        "f": [1, len], "text": "abc", "yes": True, "numpy": np.str_("abc"), "set": {1},
    }  # fmt: skip
    checkpoint = {"hyper_parameters": values, "datamodule_hyper_parameters": {"g": print}, "hparams_type": dict}
    io = VerifiedCheckpointIO()
    for name in ("a.ckpt", "b.ckpt"):
        io.save_checkpoint(dict(checkpoint), tmp_path / name)
    content = load_checkpoint_file(tmp_path / "b.ckpt")
    assert content["hyper_parameters"].pop("t").tolist() == [1]
    assert content["hyper_parameters"] == {"a": [1, (2.5, None)], "b": {"c": {"x": b"1"}}, "text": "abc", "yes": True}
    assert content["datamodule_hyper_parameters"] == {}
    assert "hparams_type" not in content
    reported = capsys.readouterr().err
    assert reported.count("left out of checkpoints: f, net, numpy, set") == 1
    assert reported.count("left out of checkpoints: g") == 1


@pytest.mark.parametrize("other", [True, False])
def test_a_checkpoint_that_can_not_be_used_is_reported_with_another(tmp_path: Path, other: bool) -> None:
    path = save(tmp_path / "last.ckpt", {"a": torch.zeros(2000)}, step=2)
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    if other:
        save(tmp_path / "early.ckpt", {})
    with pytest.raises(
        MLScaleError, match="the checkpoint can't be used: its content is not what was written"
    ) as caught:
        load_checkpoint_file(path)
    named = (
        f"init_from={tmp_path / 'early.ckpt'}, the latest one there"
        if other
        else "init_from=<a checkpoint of another run>"
    )
    assert caught.value.fix.startswith(named)
    assert caught.value.where == str(path)


def test_what_is_absent_or_no_checkpoint_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="the checkpoint can't be read") as caught:
        load_checkpoint_file(tmp_path / "none" / "a.ckpt")
    assert caught.value.why == "No such file or directory"
    (tmp_path / "text.ckpt").write_bytes(b"no archive")
    with pytest.raises(MLScaleError, match="can't be used: it is cut short, or no checkpoint"):
        load_checkpoint_file(tmp_path / "text.ckpt")


def test_objects_that_only_code_can_build_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io = VerifiedCheckpointIO()
    for name in ("a.ckpt", "b.ckpt"):
        io.save_checkpoint({"state": {Path("x"): 1}}, tmp_path / name)
    assert capsys.readouterr().err.count("can't be loaded again") == 1
    with pytest.raises(MLScaleError, match="holds more than tensors and plain values") as caught:
        load_checkpoint_file(tmp_path / "a.ckpt")
    assert "Path" in caught.value.why
    assert caught.value.where == str(tmp_path / "a.ckpt")


def test_a_save_that_is_interrupted_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError, PicklingError)):
        VerifiedCheckpointIO().save_checkpoint({"state": lambda: 1}, tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_hyper_parameters_of_the_data_alone_are_made_plain_too(tmp_path: Path) -> None:
    VerifiedCheckpointIO().save_checkpoint({"datamodule_hyper_parameters": {"a": 1, "g": print}}, tmp_path / "a.ckpt")
    assert load_checkpoint_file(tmp_path / "a.ckpt")["datamodule_hyper_parameters"] == {"a": 1}


def test_one_number_of_numpy_among_others_is_made_plain(tmp_path: Path) -> None:
    content = {"a": [1, np.float64(2.5)], "b": {"x": 1, "y": np.int64(3)}, "c": (np.bool_(True), "d")}
    VerifiedCheckpointIO().save_checkpoint(dict(content), tmp_path / "a.ckpt")
    assert load_checkpoint_file(tmp_path / "a.ckpt") == {"a": [1, 2.5], "b": {"x": 1, "y": 3}, "c": (True, "d")}
