"""The profile that a run collects is that of its best checkpoint, whatever the task is, and it disturbs nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from mlscale.export import collected_profile as collected
from mlscale.export.reference_profile import ProfileBuilder, compute_value_edges
from mlscale.export.servable import compute_softmax
from mlscale.monitor.collect import CollectReference
from mlscale.runs.checkpoint_files.checkpoint_digest import read_content_digest
from mlscale.tasks import Classification
from mlscale.train.after_fit import run_after_fit_hooks
from mlscale.train.callbacks import Checkpoints
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file as load_checkpoint
from mlscale.train.trainer_patches import apply_trainer_patches
from tests.contract.test_documents import validate
from tests.unit.fitting import Loader, batches, classifier, trainer


class Data(pl.LightningDataModule):
    """Anybody's own: what it gives is what a client sends. The last of each six samples counts for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.val: list[Any] = batches(3, size=6, seed=7)
        for batch in self.val:
            batch["weight"] = torch.tensor([1.0] * 5 + [0.0])

    def train_dataloader(self) -> Any:
        return Loader(batches(4))

    def val_dataloader(self) -> Any:
        return Loader(self.val)


class ByItsModel(Classification):
    """A task whose validation does not call itself."""

    def _evaluate(self, batch: Any) -> None:
        losses = self.losses(self.model(batch.x), batch)
        self._tally.add_means((losses, losses * 0), None)


class NoLogits(Classification):
    """A task that gives something else."""

    def forward(self, x: Any) -> Any:
        return {"logits": self.model(x)}

    def _evaluate(self, batch: Any) -> None:
        self._tally.add_means((torch.ones(1), torch.ones(1)), None)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.model(batch["x"]).square().mean()


def run(folder: Path, task: pl.LightningModule, *extra: pl.Callback, epochs: int = 3) -> pl.Trainer:
    """A fit with our checkpoints, as `assemble` sets it up."""
    best = Checkpoints(folder / "checkpoints", monitor="val/loss", mode="min")
    fit = trainer(
        max_epochs=epochs,
        callbacks=[*extra, best],
        enable_checkpointing=True,
        default_root_dir=str(folder),
        log_every_n_steps=1,
    )
    fit.strategy.checkpoint_io = VerifiedCheckpointIO()
    apply_trainer_patches(fit)
    fit.fit(task, datamodule=Data())
    return fit


def expected(folder: Path) -> Any:
    """The profile of the best checkpoint, worked out by itself."""
    weights = load_checkpoint(folder / "checkpoints" / "best.ckpt")["state_dict"]
    profile = None
    for batch in Data().val:
        x, y = batch["x"][:5], batch["y"][:5]
        logits = torch.nn.functional.linear(x, weights["model.weight"], weights["model.bias"]).numpy()
        if profile is None:
            profile = ProfileBuilder(2, compute_value_edges(batch["x"].numpy()))
        profile.add_batch(x.numpy(), compute_softmax(logits), y.numpy())
    assert profile is not None
    return profile.finish()


@pytest.mark.parametrize("kind", [Classification, ByItsModel])
def test_it_is_that_of_the_best_checkpoint(tmp_path: Path, kind: type[Classification]) -> None:
    task = classifier()
    task.__class__ = kind
    fit = run(tmp_path, task, CollectReference())
    found, wanted = collected.read_collected_profile(tmp_path), expected(tmp_path)
    best = tmp_path / "checkpoints" / "best.ckpt"
    validate("reference", json.loads((tmp_path / "reference" / "profile.json").read_text()))
    assert found.about["checkpoint"]["sha256"] == read_content_digest(best)
    assert found.about["samples"] == wanted.about["samples"] == 15
    assert found.about["accuracy"] == wanted.about["accuracy"]
    for name, array in wanted.arrays.items():
        if not name.startswith("sample_"):
            np.testing.assert_allclose(found.arrays[name], array, rtol=1e-5)
    assert collected.has_collected_profile(tmp_path, best)
    before = (tmp_path / "reference" / "profile.json").stat().st_mtime_ns
    (told,) = run_after_fit_hooks(fit, task)
    assert told.metrics == {"reference_samples": 15}
    assert (tmp_path / "reference" / "profile.json").stat().st_mtime_ns == before  # nothing was left to do


def test_nothing_of_the_training_changes(tmp_path: Path) -> None:
    plain, watched = classifier(), classifier()
    one, two = run(tmp_path / "a", plain), run(tmp_path / "b", watched, CollectReference())
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in watched.state_dict().items())
    assert one.callback_metrics == two.callback_metrics
    assert not watched._forward_hooks


@pytest.mark.parametrize("damage", ["gone", "stale", "torn"])
def test_a_checkpoint_without_its_profile_gets_it_at_the_end(tmp_path: Path, damage: str) -> None:
    """As after a kill between the two, and a run that goes on and never becomes better."""
    task = classifier()
    fit = run(tmp_path, task, CollectReference())
    wanted, about = collected.read_collected_profile(tmp_path), tmp_path / "reference" / "profile.json"
    if damage == "gone":
        about.unlink()
    elif damage == "stale":
        about.write_text(about.read_text().replace(wanted.about["checkpoint"]["sha256"], "0" * 64))
    else:
        (tmp_path / "reference" / "profile.npz").write_bytes(b"PK")
    assert not collected.has_collected_profile(tmp_path, tmp_path / "checkpoints" / "best.ckpt")
    (told,) = run_after_fit_hooks(fit, task)
    assert told.metrics == {"reference_samples": 15}
    again = collected.read_collected_profile(tmp_path)
    assert again.about["checkpoint"] == wanted.about["checkpoint"]
    assert again.about["accuracy"] == wanted.about["accuracy"]
    assert again.arrays["class_counts"].tolist() == wanted.arrays["class_counts"].tolist()


def test_what_can_not_be_profiled_ends_no_run(tmp_path: Path) -> None:
    task = classifier()
    task.__class__ = NoLogits
    fit = run(tmp_path, task, CollectReference())
    (told,) = run_after_fit_hooks(fit, task)
    assert (told.remark, told.ok) == ("no reference profile: the task gives no logits, (n, classes)", True)
    assert not (tmp_path / "reference").exists()


def test_the_check_of_validation_before_a_fit_counts_for_nothing(tmp_path: Path) -> None:
    callback = CollectReference()
    fit = trainer(max_epochs=1, callbacks=[callback], num_sanity_val_steps=2, log_every_n_steps=1)
    seen: list[int] = []
    callback._add_batch = lambda *arguments: seen.append(arguments[0].sanity_checking)  # type: ignore[method-assign]
    fit.fit(classifier(), datamodule=Data())
    assert seen == [False] * 3
