"""Which part of a run a moment is charged to, in a fit of Lightning's own and in numbers that are made up."""

import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch.utils.data import DataLoader

from mlscale.profile.step_parts import (
    CHECKPOINT,
    COMPUTE,
    LOOP,
    TRANSFER,
    VALIDATION,
    WAIT,
    NamedParts,
    PartTimer,
    PartTimes,
    classify_action,
    read_part_times,
)

NAP = 0.02


class Task(pl.LightningModule):
    """A step and a validation that take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        time.sleep(NAP)
        loss: torch.Tensor = self.layer(batch).mean()
        self.log("loss", loss)
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        time.sleep(NAP)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        time.sleep(NAP)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Sleeper(pl.Callback):
    """One whose hooks within a step, in a validation, at a save and after an epoch each take their time."""

    def on_before_zero_grad(self, *_: Any) -> None:  # inside the optimizer's step, and yet not compute
        time.sleep(NAP)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        time.sleep(NAP)

    def on_save_checkpoint(self, *_: Any) -> None:
        time.sleep(NAP)

    def on_train_epoch_end(self, *_: Any) -> None:
        time.sleep(NAP)


class Slow(DummyLogger):
    """A logger that takes its time."""

    def log_metrics(self, *_: Any, **__: Any) -> None:
        time.sleep(NAP)


def test_each_moment_of_a_fit_is_charged_to_its_part(tmp_path: Path) -> None:
    loader: Any = DataLoader([torch.ones(2)] * 24, batch_size=4)  # type: ignore[arg-type]  # a list will do
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=Slow(),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Sleeper(), NamedParts(), pl.callbacks.ModelCheckpoint(dirpath=tmp_path, save_last=True)],
        profiler=PartTimer(str(tmp_path / "parts.json"), 6),
        default_root_dir=tmp_path,
    )
    trainer.fit(Task(), loader, loader)
    timed = read_part_times(tmp_path / "parts.json")
    assert (timed.steps, timed.epochs, timed.validation_batches) == (6, 2, 4)
    assert timed.of_steps[WAIT] > 0
    for part in (COMPUTE, "callback Sleeper", "Task.on_train_batch_start", "logger Slow"):
        assert timed.of_steps[part] >= 6 * NAP, part
    assert timed.of_steps[VALIDATION] + timed.of_epochs.get(VALIDATION, 0) >= 8 * NAP  # with its callbacks
    assert timed.of_epochs[CHECKPOINT] >= 2 * NAP
    assert timed.of_epochs["callback Sleeper"] >= 2 * NAP
    assert sum(timed.of_steps.values()) < 6 * 6 * NAP + 8 * NAP + 1.0  # nothing twice, on a busy machine
    shares = timed.compute_shares(6, 2)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_shares_are_those_of_an_epoch_of_the_run() -> None:
    """Ten steps were timed and two epochs' ends; the run has 100 steps an epoch and validates 50 batches."""
    timed = PartTimes(10, 2, {COMPUTE: 1.0, WAIT: 0.5, VALIDATION: 0.4}, {CHECKPOINT: 4.0}, 4)
    whole = 10 + 5 + 50 * 0.1 + 2
    assert timed.compute_shares(100, 50) == pytest.approx(
        {COMPUTE: 10 / whole, WAIT: 5 / whole, VALIDATION: 5 / whole, CHECKPOINT: 2 / whole}
    )
    assert timed.compute_shares(100, None) == pytest.approx({COMPUTE: 10 / 17, WAIT: 5 / 17, CHECKPOINT: 2 / 17})
    assert timed.compute_shares(None, None) == pytest.approx({COMPUTE: 2 / 3, WAIT: 1 / 3})


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ("[Strategy]DDPStrategy.training_step", COMPUTE),
        ("[LightningModule]GAN.optimizer_step", COMPUTE),
        ("[LightningModule]GAN.on_train_batch_end", "GAN.on_train_batch_end"),
        ("[LightningDataModule]Own.transfer_batch_to_device", TRANSFER),
        ("[Strategy]SingleDeviceStrategy.batch_to_device", TRANSFER),
        ("[Callback]EarlyStopping{'monitor': 'val.loss', 'only': ['a']}.on_train_batch_end", "callback EarlyStopping"),
        ("[Callback]build.<locals>.Mine.on_before_backward", "callback Mine"),
        ("[Callback]Mine.training_step", "callback Mine"),  # a callback does not compute, whatever its hook is called
        ("[Callback]Mine.on_validation_end", VALIDATION),
        ("[_EvaluationLoop].val_next", VALIDATION),
        ("[Logger]CSV.log_metrics", "logger CSV"),
        ("save_checkpoint", CHECKPOINT),
        ("[Callback]Mine.on_save_checkpoint", "callback Mine"),  # unless it is inside of a save
        ("[_TrainingEpochLoop].train_dataloader_next", WAIT),
        ("run_training_epoch", LOOP),
        ("an action of a later Lightning", LOOP),  # never compute
    ],
)
def test_part_of_an_action(action: str, part: str) -> None:
    assert classify_action(action) == part
