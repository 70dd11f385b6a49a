"""A run goes on from any boundary, to the bit: weights, log entries, averages, and what callbacks look at.

Each case trains once without interruption and saves at every boundary, then goes on from each of these checkpoints in a
new trainer with new objects, as another process would.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy

from mlscale.train.callbacks import Freeze, StepSeed, TrainMetrics
from mlscale.train.checkpoint import step_boundary as boundary
from mlscale.train.checkpoint.exact_resume import ExactResume
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.loggers.csv_logger import CSV
from mlscale.train.precision import LossScale, Mixed
from mlscale.train.trainer_patches import apply_trainer_patches
from tests.unit.fitting import trainer

SAMPLES, BATCH = 24, 4  # six batches an epoch


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Points that a random transform moves, by each of the three global generators."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x, self.y = torch.randn(SAMPLES, 3, generator=generator), torch.arange(SAMPLES) % 2

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(3) + random.random() + float(np.random.rand())
        return self.x[index] + 0.1 * noise, self.y[index]


class Module(pl.LightningModule):
    """A user's module, with what is easily lost: dropout, averages, metrics, hooks that log, a scheduler that looks."""

    def __init__(self, plateau: str | None) -> None:
        super().__init__()
        self.plateau = plateau
        self.first = nn.Linear(3, 8)
        self.net = nn.Sequential(self.first, nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))
        self.accuracy = MulticlassAccuracy(2)
        self.summed = MulticlassAccuracy(2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = nn.functional.cross_entropy(logits, y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("largest", logits.max(), on_epoch=True, on_step=False, reduce_fx="max")
        self.accuracy(logits, y)
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.summed.update(logits, y)
        return loss + 0.01 * random.random() * self.first.weight.sum()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("norm", self.first.weight.norm(), on_step=True, on_epoch=False)

    def on_train_epoch_end(self) -> None:
        self.log("summed", self.summed.compute())
        self.summed.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        if self.plateau is None:
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]
        reduce = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": reduce, "monitor": "val_loss", "interval": self.plateau, "strict": False},
        }


class Saves(pl.Callback):
    """Saves at every boundary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def on_step_boundary(self, trainer: Any, pl_module: Any) -> None:
        if not boundary.is_accumulating(trainer):
            self._save(trainer, "step")

    def on_epoch_boundary(self, trainer: Any, pl_module: Any) -> None:
        self._save(trainer, "epoch")

    def _save(self, trainer: Any, where: str) -> None:
        self.count += 1
        trainer.save_checkpoint(self.folder / f"{self.count:03d}-{where}.ckpt")


Case = dict[str, Any]
QUICK = ("plain", "validation twice an epoch", "accumulation that does not divide")
CASES: dict[str, Case] = {  # of three epochs where something happens in the third, and of more batches to a step
    "plain": {},
    "validation twice an epoch": {"val_check_interval": 0.5, "plateau": "step", "max_epochs": 2},
    "validation every four batches": {
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "plateau": "epoch",
        "max_epochs": 2,
    },
    "plateau by epoch": {"plateau": "epoch"},
    "accumulation": {"accumulate_grad_batches": 2, "max_epochs": 2},
    "accumulation that does not divide": {"accumulate_grad_batches": 4, "val_check_interval": 0.5},
    "max_steps": {"max_steps": 14, "max_epochs": -1},
    "workers": {"workers": 2},
    "validation every second epoch": {"check_val_every_n_epoch": 2},
    "early stopping": {"early": True, "max_epochs": 5},
    "few batches": {"limit_train_batches": 4, "max_epochs": 2},
    "frozen until a step": {"freeze": {"modules": ["first"], "until_epoch": None, "until_step": 8}, "max_epochs": 2},
    "frozen layer by layer": {"freeze": {"until_epoch": 1, "every": 1}, "val_check_interval": 0.5},
    "a loss scale": {"scale": 2.0**18, "val_check_interval": 0.5},
    "sanity check": {"num_sanity_val_steps": 2, "val_check_interval": 0.5, "plateau": "step", "max_epochs": 2},
}


def run(folder: Path, resume: Path | None, case: Case, saves: Path | None = None) -> dict[str, Any]:
    """Train, from the beginning or from a checkpoint, and tell everything that must be the same."""
    case = dict(case)
    plateau, workers, early = case.pop("plateau", None), case.pop("workers", 0), case.pop("early", False)
    freeze, scale = case.pop("freeze", None), case.pop("scale", None)
    plugin = Mixed("cpu", scale, growth_interval=4) if scale else None
    staples: list[Any] = [kind() for kind in case.pop("staples", [])]
    pl.seed_everything(7 if resume is None else 99, verbose=False)  # a new process finds other generators
    module, seed = Module(plateau), 3
    callbacks: list[Any] = [ExactResume(seed), StepSeed(seed), TrainMetrics()]
    callbacks.append(ModelCheckpoint(folder, "best", "val_loss", save_last=True, enable_version_counter=False))
    callbacks += [EarlyStopping("val_loss", patience=1)] if early else []
    callbacks += [Freeze(**freeze)] if freeze else []
    callbacks += [LossScale(plugin)] if plugin else []
    callbacks += [*staples, *([Saves(saves)] if saves else [])]
    logger = CSV(str(folder))
    arguments: Case = {"max_epochs": 3, "callbacks": callbacks, "logger": logger, "enable_checkpointing": True}
    fitting = trainer(**{**arguments, **case})
    fitting.strategy.checkpoint_io = VerifiedCheckpointIO()
    if plugin:
        fitting.strategy.precision_plugin = plugin
    apply_trainer_patches(fitting)
    train = DataLoader(Points(), BATCH, shuffle=True, num_workers=workers)
    fitting.fit(module, train, DataLoader(Points(), BATCH), ckpt_path=resume, weights_only=True)
    logger.flush()
    rows = logger._read_rows()[1]
    for row in rows:
        row.pop("train/samples_per_s", None)
        row.pop("train/peak_memory_gib", None)
    metrics = {name: value for name, value in fitting.callback_metrics.items() if "memory" not in name}
    best = fitting.checkpoint_callback
    assert isinstance(best, ModelCheckpoint)
    return {
        "weights": module.state_dict(),
        "metrics": metrics,
        "rows": rows,
        "step": fitting.global_step,
        "epoch": fitting.current_epoch,
        "checkpoint": best.state_dict(),
        "rate": fitting.optimizers[0].param_groups[0]["lr"],
        "staples": [[c.state_dict(), c.rank_state() if hasattr(c, "rank_state") else None] for c in staples],
        "precision": plugin.state_dict() if plugin else None,
    }


@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
@pytest.mark.filterwarnings("ignore:.*val_loss which is not available")  # before the first validation
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_a_run_goes_on_from_every_boundary(tmp_path: Path, name: str) -> None:
    saves, folder = tmp_path / "saves", tmp_path / "run"
    whole = run(folder, None, CASES[name], saves)
    assert name != "a loss scale" or whole["precision"]["skipped"] > 1
    rows = (folder / "metrics.csv").read_bytes()
    checkpoints = sorted(saves.glob("*.ckpt"))
    assert len(checkpoints) >= 8
    for checkpoint in checkpoints:
        (folder / "metrics.csv").write_bytes(rows)
        again = run(folder, checkpoint, CASES[name])
        assert differences(whole, again) == [], checkpoint.name


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two results differ; tensors are compared to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other}, key=str)
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return [f"{path}: {len(one)} and {len(other)}"]
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{path}/{i}")]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [] if torch.equal(one, other) else [f"{path}: {one} and {other}"]
    return [] if one == other else [f"{path}: {one!r} and {other!r}"]
