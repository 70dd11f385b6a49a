"""Which checkpoints a run keeps."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.checkpoint_files.checkpoint_search import find_best_checkpoint_file, list_checkpoint_files
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.checkpoint import step_boundary as boundary
from mlscale.train.checkpoint.exact_resume import ExactResume
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from tests.unit.fitting import At, Loader, batches, classifier, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")


class Worse(pl.Callback):
    """Logs a metric that is best at first."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("score", -float(trainer.global_step))


def kept(
    folder: Path, count: int = 6, epochs: int = 1, *more: pl.Callback, **arguments: Any
) -> dict[str, CheckpointRecord]:
    """What a fit of `count` batches per epoch leaves, by name."""
    options = {
        name: arguments.pop(name) for name in ("accumulate_grad_batches", "val_check_interval") if name in arguments
    }
    callback = Checkpoints(folder, **{"monitor": "score", "mode": "max", **arguments})
    run = trainer(
        enable_checkpointing=True, plugins=[VerifiedCheckpointIO()], callbacks=[Worse(), *more, callback],
        max_epochs=epochs, **options,
    )  # fmt: skip
    boundary.install_boundaries(run)
    run.fit(classifier(), Loader(batches(count)), Loader(batches(1)))
    return {found.path.stem: found.record for found in list_checkpoint_files(folder) if found.record}


def test_the_last_is_the_last_epochs_though_no_better(tmp_path: Path) -> None:
    found = kept(tmp_path, epochs=3)
    assert {name: (record.kind, record.step) for name, record in found.items()} == {
        "best": ("best", 6), "last": ("last", 18),
    }  # fmt: skip
    assert (found["best"].metric, found["best"].value) == ("score", -6)


class Tie(pl.Callback):
    """Logs a metric that stays, and a loss for each epoch."""

    def __init__(self, *losses: float) -> None:
        self.losses = losses

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("accuracy", 0.5)
        if self.losses:
            pl_module.log("val/loss", self.losses[trainer.current_epoch])


@pytest.mark.parametrize(
    ("losses", "epoch"), [((3.0, 1.0, 2.0), 2), ((1.0, 1.0, 2.0), 1), ((1.0, float("nan"), 0.5), 3)]
)
def test_a_tie_goes_to_the_lower_loss(losses: tuple[float, ...], epoch: int, tmp_path: Path) -> None:
    callback = Checkpoints(tmp_path, monitor="accuracy", mode="max")
    run = trainer(enable_checkpointing=True, callbacks=[Tie(*losses), callback], max_epochs=3)
    task = classifier()
    task.validation_step = lambda *_: None  # type: ignore[method-assign]
    task.on_validation_epoch_end = lambda: None  # type: ignore[method-assign]
    run.fit(task, Loader(batches(2)), Loader(batches(1)))
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 2 * epoch
    assert callback.state_dict()["loss_of_best"] == losses[epoch - 1]


class Rises(pl.Callback):
    """Logs a metric that is best in the second epoch of four."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("score", (0.2, 0.9, 0.1, 0.5)[trainer.current_epoch])


@pytest.mark.parametrize(("count", "epochs"), [(2, {1, 3}), (3, {0, 1, 3}), (-1, {0, 1, 2, 3})])
def test_several_of_the_best_have_names_of_their_own(count: int, epochs: set[int], tmp_path: Path) -> None:
    """Under one name a lesser epoch would replace the best."""
    callback = Checkpoints(tmp_path, monitor="score", mode="max", save_top_k=count)
    run = trainer(
        enable_checkpointing=True, plugins=[VerifiedCheckpointIO()], callbacks=[Rises(), callback], max_epochs=4
    )  # fmt: skip
    run.fit(classifier(), Loader(batches(3)), Loader(batches(1)))
    names = {path.name for path in tmp_path.glob("best*")}
    assert names == {f"best-epoch={epoch}-step={3 * epoch + 3}.ckpt" for epoch in epochs}
    best = tmp_path / "best-epoch=1-step=6.ckpt"
    assert (callback.best_model_path, find_best_checkpoint_file(tmp_path, "score", "max")) == (str(best), best)


@pytest.mark.parametrize(("before", "now", "best"), [(1, 2, "best.ckpt"), (2, 1, "best-epoch=1-step=6.ckpt")])
def test_the_best_is_found_after_a_resume_that_keeps_another_number(
    before: int, now: int, best: str, tmp_path: Path
) -> None:
    for count, epochs in ((before, 2), (now, 4)):
        run = trainer(
            enable_checkpointing=True, plugins=[VerifiedCheckpointIO()],
            callbacks=[Rises(), Checkpoints(tmp_path, monitor="score", mode="max", save_top_k=count)],
            max_epochs=epochs,
        )  # fmt: skip
        boundary.install_boundaries(run)
        last = tmp_path / "last.ckpt"
        run.fit(classifier(), Loader(batches(3)), Loader(batches(1)), ckpt_path=last if last.exists() else None)
    found = find_best_checkpoint_file(tmp_path, "score", "max")
    assert found is not None
    assert (found.name, torch.load(found, weights_only=True)["epoch"]) == (best, 1)


def test_a_name_with_a_placeholder_stays() -> None:
    assert Checkpoints(filename="{epoch}", monitor="score", save_top_k=3).filename == "{epoch}"


@pytest.mark.parametrize(
    ("filename", "names"),
    [
        ("{epoch}", {"epoch=0", "epoch=0-v1", "epoch=1", "epoch=1-v1"}),
        ("{epoch}-{step}", {"epoch=0-step=2", "epoch=0-step=4", "epoch=1-step=6", "epoch=1-step=8"}),
    ],
)
def test_several_of_one_epoch_do_not_replace_each_other(filename: str, names: set[str], tmp_path: Path) -> None:
    callback = Checkpoints(tmp_path, filename=filename, monitor="score", save_top_k=-1, save_last=False)
    run = trainer(
        enable_checkpointing=True, plugins=[VerifiedCheckpointIO()], callbacks=[Rises(), callback],
        max_epochs=2, val_check_interval=2,
    )  # fmt: skip
    run.fit(classifier(), Loader(batches(4)), Loader(batches(1)))
    assert {path.stem for path in tmp_path.glob("*.ckpt")} == names


def test_without_last(tmp_path: Path) -> None:
    assert set(kept(tmp_path, epochs=2, save_last=False)) == {"best"}


def test_without_a_metric_the_latest_is_kept(tmp_path: Path) -> None:
    found = kept(tmp_path, epochs=2, monitor=None)
    assert {name: record.step for name, record in found.items()} == {"best": 12, "last": 12}


def test_every_n_steps(tmp_path: Path) -> None:
    found = kept(tmp_path, every_n_steps=2, keep=-1, save_last=False)
    assert {name: (record.kind, record.step) for name, record in found.items() if name != "best"} == {
        f"step={step}": ("periodic", step) for step in (2, 4, 6)
    }


def test_the_latest_are_kept(tmp_path: Path) -> None:
    assert set(kept(tmp_path, count=12, every_n_steps=2, keep=2)) == {"best", "last", "step=10", "step=12"}


def test_those_of_a_users_own_callback_are_not_ours_to_remove(tmp_path: Path) -> None:
    """Though they are called as ours are."""
    theirs = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    found = kept(tmp_path, 9, 1, theirs, every_n_steps=5)
    assert {name for name in found if name.startswith("step")} == {"step=3", "step=5", "step=6", "step=9"}


def test_after_a_resume_the_earlier_ones_are_still_ours(tmp_path: Path) -> None:
    kept(tmp_path, 4, every_n_steps=1, keep=2)
    assert {path.stem for path in tmp_path.glob("step*")} == {"step=3", "step=4"}
    again = Checkpoints(tmp_path, monitor="score", mode="max", every_n_steps=1, keep=2)
    run = trainer(
        enable_checkpointing=True, plugins=[VerifiedCheckpointIO()], callbacks=[Worse(), again], max_epochs=2
    )  # fmt: skip
    boundary.install_boundaries(run)
    run.fit(classifier(), Loader(batches(4)), Loader(batches(1)), ckpt_path=str(tmp_path / "last.ckpt"))
    assert {path.stem for path in tmp_path.glob("step*")} == {"step=7", "step=8"}


def test_never_in_the_middle_of_accumulation(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    saved = At(lambda run, module, index: steps.append((run.global_step, index)))
    found = kept(tmp_path, 12, 1, saved, every_n_minutes=1e-9, keep=-1, accumulate_grad_batches=4)
    assert sorted(record.step for record in found.values() if record.kind == "periodic") == [1, 2, 3]
    assert steps[-1] == (3, 11)


def test_every_n_minutes(tmp_path: Path) -> None:
    slow = At(lambda run, module, index: time.sleep(0.06))
    found = kept(tmp_path, 10, 1, slow, every_n_minutes=0.2 / 60, keep=-1, save_last=False)
    periodic = sorted(record.step for record in found.values() if record.kind == "periodic")
    assert 1 <= len(periodic) <= 4
    assert all(later - earlier >= 2 for earlier, later in itertools.pairwise(periodic))


def test_after_a_validation_that_is_due(tmp_path: Path) -> None:
    folder = tmp_path
    seen: list[list[str]] = []

    class Validations(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(sorted(found.path.stem for found in list_checkpoint_files(folder)))

    kept(folder, 6, 1, Validations(), every_n_steps=3, keep=-1, val_check_interval=3)
    assert seen == [[], ["best", "step=3"]]  # the validation at step 3 found nothing saved yet


@pytest.mark.parametrize("arguments", [{"every_n_steps": 0}, {"every_n_minutes": -1}, {"keep": 0}])
def test_intervals_that_are_none(arguments: dict[str, Any]) -> None:
    with pytest.raises(MLScaleError, match=next(iter(arguments))) as caught:
        Checkpoints(**arguments)
    assert "callbacks.checkpoint." in caught.value.fix


def test_a_run_that_was_moved_keeps_what_is_best(tmp_path: Path) -> None:
    """Ours and a callback of the user's; the first epoch is the best."""

    def fit(folder: Path, epochs: int, resumed: Path | None = None) -> list[ModelCheckpoint]:
        own: list[ModelCheckpoint] = [
            Checkpoints(folder, monitor="score", mode="max"),
            ModelCheckpoint(folder, "mine-{step}", "score", mode="max", save_top_k=2),
        ]
        run = trainer(
            enable_checkpointing=True, plugins=[VerifiedCheckpointIO()],
            callbacks=[ExactResume(0), Worse(), *own], max_epochs=epochs,
        )  # fmt: skip
        boundary.install_boundaries(run)
        run.fit(classifier(), Loader(batches(3)), Loader(batches(1)), ckpt_path=resumed)
        return own

    fit(tmp_path / "before", epochs=2)
    now = tmp_path / "elsewhere" / "now"
    now.parent.mkdir()
    (tmp_path / "before").rename(now)
    ours, mine = fit(now, 4, now / "last.ckpt")
    assert {found.path.name: found.record.step for found in list_checkpoint_files(now) if found.record} == {
        "best.ckpt": 3, "last.ckpt": 12, "mine-step=3.ckpt": 3, "mine-step=6.ckpt": 6,
    }  # fmt: skip
    assert (ours.best_model_path, float(ours.best_model_score or 0)) == (str(now / "best.ckpt"), -3)
    assert set(mine.best_k_models) == {str(now / f"mine-step={step}.ckpt") for step in (3, 6)}
