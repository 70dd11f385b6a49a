"""Saves in the background: of the state at the save, complete at the end of the fit, and never reported too early."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from torch import nn

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.checkpoint import one_file
from mlscale.train.checkpoint.background_writer import HostCopier
from mlscale.train.checkpoint.failed_saves import guard_checkpoint_callbacks
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint.step_boundary import install_boundaries
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file
from tests.unit.fitting import Loader, batches, classifier, trainer


class Disk:
    """A disk that does not take a checkpoint's first byte until it is let go on."""

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.writers: list[str] = []


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    slow = Disk()

    class SlowWriter(AtomicCheckpointWriter):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            slow.writers.append(threading.current_thread().name)
            slow.may_write.wait(20)

    monkeypatch.setattr(one_file, "AtomicCheckpointWriter", SlowWriter)
    yield slow
    slow.may_write.set()


def guarded(*callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    run = trainer(enable_checkpointing=True, plugins=[VerifiedCheckpointIO()], callbacks=list(callbacks), **arguments)
    guard_checkpoint_callbacks(run)
    install_boundaries(run)
    return run


class Sees(pl.Callback):
    """Notes the weights and the files after each step; lets the disk write after step `at`."""

    def __init__(self, folder: Path, disk: Disk, at: int = 1000) -> None:
        self.folder, self.disk, self.at = folder, disk, at
        self.weights: dict[int, torch.Tensor] = {}
        self.files: dict[int | str, list[str]] = {}

    def on_step_boundary(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights[trainer.global_step] = pl_module.state_dict()["model.weight"].clone()
        self.files[trainer.global_step] = sorted(path.name for path in self.folder.glob("[!.]*"))
        if trainer.global_step == self.at:
            self.disk.may_write.set()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.files["end"] = sorted(path.name for path in self.folder.glob("[!.]*"))


def test_the_training_goes_on_and_the_file_has_the_state_of_its_step(tmp_path: Path, disk: Disk) -> None:
    seen = Sees(tmp_path, disk, at=5)
    run = guarded(seen, Checkpoints(tmp_path, save_top_k=0, save_last=False, every_n_steps=3))
    run.fit(classifier(), Loader(batches(5)), Loader(batches(1)))
    assert seen.files == {1: [], 2: [], 3: [], 4: [], 5: [], "end": ["step=3.ckpt"]}
    assert verify_checkpoint(tmp_path / "step=3.ckpt").state == "ok"
    assert torch.equal(load_checkpoint_file(tmp_path / "step=3.ckpt")["state_dict"]["model.weight"], seen.weights[3])
    assert not torch.equal(seen.weights[3], seen.weights[5])
    assert [name.startswith("mlscale-checkpoint") for name in disk.writers] == [True]


def test_an_old_one_is_removed_only_once_the_new_one_is_committed(tmp_path: Path, disk: Disk) -> None:
    disk.may_write.set()
    first = guarded(Checkpoints(tmp_path, save_top_k=0, save_last=False, every_n_steps=2))
    first.fit(classifier(), Loader(batches(2)), Loader(batches(1)))
    disk.may_write.clear()
    seen = Sees(tmp_path, disk, at=5)
    again = guarded(seen, Checkpoints(tmp_path, save_top_k=0, save_last=False, every_n_steps=2), max_epochs=3)
    again.fit(classifier(), Loader(batches(2)), Loader(batches(1)), ckpt_path=str(tmp_path / "step=2.ckpt"))
    assert (seen.files[4], seen.files[5]) == (["step=2.ckpt"], ["step=2.ckpt"])
    assert seen.files["end"] == ["step=6.ckpt"]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_it_can_be_turned_off_for_all_callbacks(asynchronous: bool, tmp_path: Path, disk: Disk) -> None:
    disk.may_write.set()
    own = ModelCheckpoint(tmp_path / "own", filename="own", monitor=None)
    run = guarded(own, Checkpoints(tmp_path / "kept", asynchronous=asynchronous))
    run.fit(classifier(), Loader(batches(2)), Loader(batches(1)))
    assert {name.startswith("mlscale-checkpoint") for name in disk.writers} == {asynchronous}
    assert len(disk.writers) == 3


class Uploads(ModelCheckpoint):
    """Reads the file right after the save, as callbacks that upload it do."""

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        assert verify_checkpoint(Path(filepath)).state == "ok"


class SavesItself(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path)
        assert verify_checkpoint(self.path).state == "ok"


def test_code_that_reads_the_file_after_the_save_finds_it(tmp_path: Path, disk: Disk) -> None:
    disk.may_write.set()
    run = guarded(Uploads(tmp_path / "uploads"), SavesItself(tmp_path / "own.ckpt"))
    run.fit(classifier(), Loader(batches(2)), Loader(batches(1)))
    assert {name.startswith("mlscale-checkpoint") for name in disk.writers} == {False}
    assert run.state.finished


class Tracker(Logger):
    """Reads the best checkpoint when it is notified, as trackers do that upload it."""

    name, version = "tracker", "0"

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        checked = verify_checkpoint(Path(checkpoint_callback.best_model_path))
        assert checked.record is not None
        self.steps.append(checked.record.step)


def test_trackers_are_notified_once_the_file_exists(tmp_path: Path) -> None:
    tracker = Tracker()
    keep = ModelCheckpoint(tmp_path, filename="best", monitor="step", mode="max")
    run = guarded(keep, logger=tracker, max_epochs=3)
    run.fit(classifier(), Loader(batches(2)), Loader(batches(1)))
    assert tracker.steps == [2, 4, 6]


def test_a_fit_that_fails_waits_for_the_save(tmp_path: Path, disk: Disk) -> None:
    class Fails(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 2:
                threading.Timer(0.3, disk.may_write.set).start()
                raise KeyError("of the user's")

    run = guarded(Fails(), Checkpoints(tmp_path, save_top_k=0, every_n_steps=2))
    with pytest.raises(KeyError, match="of the user's"):
        run.fit(classifier(), Loader(batches(4)), Loader(batches(1)))
    assert verify_checkpoint(tmp_path / "step=2.ckpt").state == "ok"
    assert not list(tmp_path.glob(".*"))


def test_an_error_of_the_thread_ends_the_run_at_the_next_boundary(tmp_path: Path) -> None:
    class Blocks(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 1:
                (tmp_path / "kept").rmdir()
                (tmp_path / "kept").write_text("a file, no folder")

    run = guarded(Blocks(), Checkpoints(tmp_path / "kept", save_top_k=0, every_n_steps=2))
    (tmp_path / "kept").mkdir()
    with pytest.raises(MLScaleError, match=r"can't write the checkpoint step=2\.ckpt"):
        run.fit(classifier(), Loader(batches(40)), Loader(batches(1)))


# The copy


def build_state() -> dict[str, Any]:
    """A state with all that checkpoints hold: shared weights, views, other types and dtypes."""
    layer = nn.Linear(4, 3)
    tied = nn.Sequential(layer, nn.ReLU(), nn.BatchNorm1d(3))
    state = tied.state_dict()
    flat = torch.arange(12.0)
    return {
        "state_dict": state,
        "again": OrderedDict(state),
        "views": [flat[:4], flat.reshape(3, 4).t(), flat],
        "bits": torch.tensor([True, False]),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "nothing": torch.empty(0),
        "sparse": torch.eye(3).to_sparse(),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "plain": {"step": 3, "names": ("a", None, 1.5), 4: b"bytes"},
    }


def save_to_bytes(state: Any, path: Path) -> bytes:
    torch.save(state, path)
    return path.read_bytes()


def test_a_copy_is_saved_as_the_same_bytes(tmp_path: Path) -> None:
    state = build_state()
    # Its pickle would hold two references to one object where the copy has two equal ones.
    plain = {key: value for key, value in state.items() if key not in ("sparse", "conjugate")}
    copied = HostCopier().copy_state(plain).content
    assert save_to_bytes(copied, tmp_path / "state.pt") == save_to_bytes(plain, tmp_path / "state.pt")
    assert copied["state_dict"]._metadata == state["state_dict"]._metadata


def test_a_copy_shares_what_is_shared_and_nothing_with_the_original() -> None:
    state = build_state()
    expected = {key: value.clone() for key, value in state["state_dict"].items()}
    copied = HostCopier().copy_state(state).content
    for tensor in state["state_dict"].values():
        tensor.zero_()
    state["views"][2].zero_()
    state["plain"]["step"] = 4
    assert all(torch.equal(copied["state_dict"][key], expected[key]) for key in expected)
    views = copied["views"]
    assert len({view.untyped_storage()._cdata for view in views}) == 1
    assert views[1].tolist() == torch.arange(12.0).reshape(3, 4).t().tolist()
    assert copied["plain"] == {"step": 3, "names": ("a", None, 1.5), 4: b"bytes"}
    assert torch.equal(copied["sparse"].to_dense(), torch.eye(3))
    assert torch.equal(copied["conjugate"], torch.ones(2, dtype=torch.complex64))
    one = copied["state_dict"]["0.weight"]
    assert one.data_ptr() == copied["again"]["0.weight"].data_ptr()


def test_buffers_are_used_again_and_do_not_pile_up() -> None:
    copier = HostCopier()
    first = copier.copy_state([torch.ones(1000)]).content[0].data_ptr()
    copier.reclaim_buffers()
    assert copier.copy_state([torch.zeros(1000)]).content[0].data_ptr() == first
    copier.reclaim_buffers()
    for size in range(1, 60):
        copier.copy_state([torch.ones(1000 + size)])
        copier.reclaim_buffers()
    held = sum(len(buffers) for buffers in copier._spare.values())
    assert held <= 6
