"""Lightning's bookkeeping after a save that found no room: as if it had not been tried."""

import resource
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.checkpoint import failed_saves as unsaved
from mlscale.train.checkpoint import step_boundary as boundary
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from tests.unit.fitting import Loader, batches, classifier, trainer

EPOCHS = 6


class Full(pl.Callback):
    """There is no room in some epochs; the metric is better at each."""

    def __init__(self, *epochs: int) -> None:
        self.epochs = epochs
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The save that the epoch before has begun is not the one that the disk has no space for.
        trainer.strategy.checkpoint_io.finish_save()  # type: ignore[attr-defined]
        self.limit(1000 if trainer.current_epoch in self.epochs else self.before[0])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("score", float(trainer.current_epoch))

    def limit(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self.before[1]))


def fitted(callback: ModelCheckpoint, *full: int) -> VerifiedCheckpointIO:
    """The plugin, after a fit in which there was no room in the epochs `full`."""
    io, room = VerifiedCheckpointIO(), Full(*full)
    run = trainer(enable_checkpointing=True, plugins=[io], callbacks=[room, callback], max_epochs=EPOCHS)
    unsaved.guard_checkpoint_callbacks(run)
    boundary.install_boundaries(run)
    try:
        run.fit(classifier(), Loader(batches(2)), Loader(batches(1)))
    finally:
        room.limit(room.before[0])
    assert run.current_epoch == EPOCHS
    return io


def model_checkpoint(folder: Path, **arguments: Any) -> ModelCheckpoint:
    return ModelCheckpoint(**{"dirpath": folder, "filename": "{epoch}", "monitor": "score", "mode": "max", **arguments})


def test_the_best_is_the_best_that_was_saved(tmp_path: Path) -> None:
    callback = model_checkpoint(tmp_path)
    io = fitted(callback, 3, 4, 5)
    assert [failed.step for failed in io.failed] == [8, 10, 12]
    assert callback.best_model_path == str(tmp_path / "epoch=2.ckpt")
    assert callback.best_model_score == 2
    assert callback.best_k_models == {str(tmp_path / "epoch=2.ckpt"): 2}
    assert [path.name for path in tmp_path.iterdir()] == ["epoch=2.ckpt"]
    assert verify_checkpoint(tmp_path / "epoch=2.ckpt").state == "ok"


def test_what_was_left_is_removed_once_there_is_room_again(tmp_path: Path) -> None:
    callback = model_checkpoint(tmp_path, save_top_k=2)
    fitted(callback, 2, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch=4.ckpt", "epoch=5.ckpt"]
    assert callback.best_model_score == 5


def test_nothing_was_ever_saved(tmp_path: Path) -> None:
    callback = model_checkpoint(tmp_path, save_last=True)
    io = fitted(callback, *range(EPOCHS))
    assert len(io.failed) >= EPOCHS
    assert (callback.best_model_path, callback.best_model_score, callback.last_model_path) == ("", None, "")
    assert list(tmp_path.iterdir()) == []


def test_ours_keeps_the_old_last_and_the_old_periodic_ones(tmp_path: Path) -> None:
    callback = Checkpoints(tmp_path, monitor="score", mode="max", every_n_steps=1, keep=2)
    fitted(callback, 3, 4, 5)
    found = {each.path.stem: each.record.step for each in list_checkpoint_files(tmp_path) if each.record}
    assert found == {"best": 6, "last": 6, "step=5": 5, "step=6": 6}
    assert callback.best_model_score == 2


def test_an_error_in_the_training_is_not_hidden_by_a_full_disk(tmp_path: Path) -> None:
    class Fails(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise KeyError("of the user's")

    room, callback = Full(0, 1), model_checkpoint(tmp_path, save_on_exception=True)
    run = trainer(
        enable_checkpointing=True, plugins=[VerifiedCheckpointIO()], callbacks=[room, Fails(), callback], max_epochs=2
    )
    unsaved.guard_checkpoint_callbacks(run)
    try:
        with pytest.raises(KeyError, match="of the user's"):
            run.fit(classifier(), Loader(batches(2)), Loader(batches(1)))
    finally:
        room.limit(room.before[0])
    assert list(tmp_path.iterdir()) == []


def test_a_direct_save_raises_nothing(tmp_path: Path) -> None:
    io, room = VerifiedCheckpointIO(), Full()

    class Saves(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            room.limit(1000)
            trainer.save_checkpoint(tmp_path / "own.ckpt")
            room.limit(room.before[0])
            assert unsaved.has_last_save_failed(trainer)
            trainer.save_checkpoint(tmp_path / "own.ckpt")
            assert not unsaved.has_last_save_failed(trainer)

    run = trainer(enable_checkpointing=True, plugins=[io], callbacks=[room, Saves(), Checkpoints(tmp_path)])
    unsaved.guard_checkpoint_callbacks(run)
    run.fit(classifier(), Loader(batches(2)), Loader(batches(1)))
    assert len(io.failed) == 1
    assert verify_checkpoint(tmp_path / "own.ckpt").state == "ok"
