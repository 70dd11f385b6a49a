"""What judges a run is logged: it is looked for before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import EarlyStopping
from torch.utils.data import DataLoader

from mlscale.errors import MLScaleError
from mlscale.train.callbacks import Checkpoints, TrainMetrics
from mlscale.train.callbacks.run_metric import RunMetric
from tests.unit.fitting import trainer


class Module(LightningModule):
    """Logs what it is told to, as modules of other projects do."""

    def __init__(self, **names: float) -> None:
        super().__init__()
        self.layer, self.names = torch.nn.Linear(1, 1), names
        self.plateau: Any = None

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train_loss", loss)
        return loss  # type: ignore[no-any-return]

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        for name, value in self.names.items():
            self.log(name, value)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        if self.plateau is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.plateau}}


class SilentAtFirst(Module):
    """A common idiom: nothing of the sanity validation counts."""

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        if not self.trainer.sanity_checking:
            super().validation_step(batch, index)


class LogsInTraining(Module):
    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.log("acc", 0.5, on_step=False, on_epoch=True)
        return super().training_step(batch, index)


def fit(
    module: Module, metric: str, mode: str, *, folder: Path, more: tuple[Callback, ...] = (), **arguments: Any
) -> Checkpoints:
    checkpoints = Checkpoints(folder, monitor=metric, mode=mode, save_last=False)
    fitting = trainer(
        callbacks=[RunMetric(metric), TrainMetrics(), *more, checkpoints],
        enable_checkpointing=True,
        **{"num_sanity_val_steps": 2, **arguments},
    )
    data: DataLoader[torch.Tensor] = DataLoader(torch.ones(4, 1), 1)  # type: ignore[arg-type]
    fitting.fit(module, data, data)
    return checkpoints


def test_the_best_is_kept_and_not_the_worst(tmp_path: Path) -> None:
    class Worse(Module):
        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            self.log("val_loss", float(self.current_epoch))

    checkpoints = fit(Worse(), "val_loss", "min", folder=tmp_path, max_epochs=3)
    assert checkpoints.best_model_score == 0


def test_a_set_metric_that_is_not_logged_is_refused_before_a_step(tmp_path: Path) -> None:
    module = Module(val_loss=1.0, val_acc=0.5)
    with pytest.raises(MLScaleError) as caught:
        fit(module, "val/acc", "max", folder=tmp_path)
    assert module.trainer.global_step == 0
    assert caught.value.where == "metric=val/acc"
    assert caught.value.why == "the sanity validation logged: val_acc, val_loss"
    first, second = caught.value.fix.split("\n")
    assert first.startswith("metric=val_acc mode=max, or ")
    assert second.startswith("trainer.num_sanity_val_steps=0, where ")
    assert caught.value.unbuilt


@pytest.mark.parametrize("who", ["stopping", "plateau"])
def test_what_others_monitor_must_be_logged_too(who: str, tmp_path: Path) -> None:
    module, more = Module(val_loss=1.0), (EarlyStopping("val_los"),) if who == "stopping" else ()
    module.plateau = "val_los" if who == "plateau" else None
    with pytest.raises(MLScaleError, match="no 'val_los' was logged") as caught:
        fit(module, "val_loss", "min", folder=tmp_path, more=more)
    assert module.trainer.global_step == 0
    assert caught.value.fix.startswith("write 'monitor: val_loss' there")


def test_a_name_that_training_may_log_is_refused_after_its_first_step(tmp_path: Path) -> None:
    module = Module(val_acc=1.0)
    with pytest.raises(MLScaleError, match="no 'acc' was logged"):
        fit(module, "acc", "max", folder=tmp_path)
    assert module.trainer.global_step == 1


@pytest.mark.parametrize(
    ("module", "metric"),
    [
        (LogsInTraining(val_acc=1.0), "acc"),
        (Module(val_acc=1.0), "train/loss"),
        (Module(val_acc=1.0), "train_loss"),
        (SilentAtFirst(val_loss=1.0), "val_loss"),
    ],
)
def test_a_set_metric_that_is_logged_later_is_fine(module: Module, metric: str, tmp_path: Path) -> None:
    checkpoints = fit(module, metric, "min", folder=tmp_path)
    assert checkpoints.best_model_score is not None
