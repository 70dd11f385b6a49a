"""The metric that judges a run: chosen, told to what follows it, and checked before training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import EarlyStopping
from torch.utils.data import DataLoader

from mlscale.errors import MLScaleError
from mlscale.train.callbacks import Checkpoints, TrainMetrics
from mlscale.train.callbacks.run_metric import UNCHOSEN, RunMetric
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


class AtEpochEnd(Module):
    def on_validation_epoch_end(self) -> None:
        self.log("val_f1", 0.5)


class OnStep(Module):
    """Of such a metric Lightning has no value once a validation is over."""

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val_loss", 1.0, on_step=True, on_epoch=False)


class SilentAtFirst(Module):
    """A common idiom: nothing of the sanity validation counts."""

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log("val_auroc", 0.5)


class LogsInTraining(Module):
    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.log("acc", 0.5, on_step=False, on_epoch=True)
        return super().training_step(batch, index)


def fit(
    module: Module,
    metric: str | None = None,
    mode: str | None = None,
    *,
    folder: Path,
    given: bool = False,
    more: tuple[Callback, ...] = (),
    validate: bool = True,
    **arguments: Any,
) -> tuple[RunMetric, Checkpoints, list[tuple[str | None, str | None]]]:
    recorded: list[tuple[str | None, str | None]] = []
    judge = RunMetric(
        metric,
        mode,
        given=given,
        given_mode=mode is not None and metric is None,
        record=lambda metric, mode: recorded.append((metric, mode)),
    )
    checkpoints = Checkpoints(folder, monitor=metric or UNCHOSEN, mode=mode or "min", save_last=False)
    fitting = trainer(
        callbacks=[judge, TrainMetrics(), *more, checkpoints],
        enable_checkpointing=True,
        **{"num_sanity_val_steps": 2, **arguments},
    )
    data: DataLoader[torch.Tensor] = DataLoader(torch.ones(4, 1), 1)  # type: ignore[arg-type]
    fitting.fit(module, data, data if validate else None)
    return judge, checkpoints, recorded


@pytest.mark.parametrize(
    ("module", "metric", "mode"),
    [
        (Module(val_loss=1.0), "val_loss", "min"),
        (Module(val_loss=1.0, val_acc=0.5), "val_acc", "max"),
        (AtEpochEnd(val_loss=1.0), "val_f1", "max"),
        (OnStep(), "train/loss", "min"),
        (SilentAtFirst(val_loss=1.0), "val_auroc", "max"),
        (Module(), "train/loss", "min"),
        (Module(val_foo=1.0), "train/loss", "min"),
    ],
    ids=["loss", "accuracy", "epoch_end", "on_step", "silent_at_first", "nothing", "unclear"],
)
@pytest.mark.parametrize("sanity_steps", [2, 0])
def test_one_that_is_logged_is_chosen(
    module: Module, metric: str, mode: str, sanity_steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, checkpoints, recorded = fit(module, folder=tmp_path, num_sanity_val_steps=sanity_steps)
    assert (judge.metric, judge.mode) == (checkpoints.monitor, checkpoints.mode) == (metric, mode)
    assert recorded == [(metric, mode)]
    assert math.isfinite(float(checkpoints.best_model_score or math.nan))
    assert (tmp_path / "best.ckpt").is_file()
    reported = [line for line in capsys.readouterr().err.splitlines() if line.startswith("metric    ")]
    assert len(reported) == 1
    assert reported[0].startswith(f"metric    {metric}, {'less' if mode == 'min' else 'more'} is better: ")


class Adversaries(LogsInTraining):
    """Optimizes manually, and returns nothing."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.logged, self.automatic_optimization = names, False

    def training_step(self, batch: torch.Tensor, index: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        loss = self.layer(batch).sum()
        self.manual_backward(loss)
        optimizer.step()
        for name in self.logged:
            self.log(name, loss)


@pytest.mark.parametrize(
    ("names", "metric"),
    [(("g_loss", "d_loss"), None), (("train/G_loss", "train/D_loss"), None), ((), None), (("elbo_loss",), "elbo_loss"),
     (("total_loss", "kl_loss"), "total_loss")],
)  # fmt: skip
@pytest.mark.parametrize("validate", [True, False])
def test_a_module_that_returns_no_loss_needs_none(
    names: tuple[str, ...], metric: str | None, validate: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = Adversaries(*names)
    if not validate:
        module.validation_step = None  # type: ignore[assignment,method-assign]
    judge, checkpoints, _ = fit(module, folder=tmp_path, validate=validate)
    assert judge.metric == checkpoints.monitor == metric
    assert (tmp_path / "best.ckpt").is_file()
    assert f"metric    {metric or 'none'}" in capsys.readouterr().err


def test_without_a_validation_it_is_the_training_loss(tmp_path: Path) -> None:
    module = Module()
    module.validation_step = None  # type: ignore[assignment,method-assign]
    judge, checkpoints, _ = fit(module, folder=tmp_path, validate=False)
    assert judge.metric == checkpoints.monitor == "train/loss"
    assert checkpoints.best_model_score is not None


def test_the_best_is_kept_and_not_the_worst(tmp_path: Path) -> None:
    class Worse(Module):
        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            self.log("val_loss", float(self.current_epoch))

    _, checkpoints, _ = fit(Worse(), folder=tmp_path, max_epochs=3)
    assert checkpoints.best_model_score == 0


def test_a_mode_that_is_set_chooses_among_metrics_of_that_direction(tmp_path: Path) -> None:
    judge, _, _ = fit(Module(val_loss=1.0, val_acc=0.5), mode="min", folder=tmp_path)
    assert judge.metric == "val_loss"


def test_what_follows_the_metric_turns_with_it(tmp_path: Path) -> None:
    stopping, module = EarlyStopping(UNCHOSEN, mode="min", patience=1, min_delta=0.1), Module(val_acc=0.5)
    module.plateau = UNCHOSEN
    fit(module, folder=tmp_path, more=(stopping,), max_epochs=3)
    assert (stopping.monitor, stopping.mode, stopping.min_delta) == ("val_acc", "max", 0.1)
    assert stopping.best_score == 0.5
    assert stopping.stopped_epoch == 1
    config = module.trainer.lr_scheduler_configs[0]
    assert (config.monitor, config.scheduler.mode, config.scheduler.best) == ("val_acc", "max", 0.5)  # type: ignore[union-attr]


def test_the_tasks_own_metric_stays_where_it_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge, _, recorded = fit(Module(**{"val/accuracy": 0.5, "val/f1": 1.0}), "val/accuracy", "max", folder=tmp_path)
    assert judge.metric == "val/accuracy"
    assert not recorded
    assert "metric " not in capsys.readouterr().err


def test_the_tasks_own_metric_is_replaced_where_it_is_not_logged(tmp_path: Path) -> None:
    _, checkpoints, recorded = fit(Module(val_loss=0.5), "val/accuracy", "max", folder=tmp_path)
    assert recorded == [("val_loss", "min")]
    assert (checkpoints.monitor, checkpoints.mode) == ("val_loss", "min")


def test_a_set_metric_that_is_not_logged_is_refused_before_a_step(tmp_path: Path) -> None:
    module = Module(val_loss=1.0, val_acc=0.5)
    with pytest.raises(MLScaleError) as caught:
        fit(module, "val/acc", "max", given=True, folder=tmp_path)
    assert module.trainer.global_step == 0
    assert caught.value.where == "metric=val/acc"
    assert caught.value.why == "the sanity validation logged: val_acc, val_loss"
    assert caught.value.fix.startswith("metric=val_acc mode=max, or ")
    assert caught.value.unbuilt


@pytest.mark.parametrize("who", ["stopping", "plateau"])
def test_what_others_monitor_must_be_logged_too(who: str, tmp_path: Path) -> None:
    module, more = Module(val_loss=1.0), (EarlyStopping("val_los"),) if who == "stopping" else ()
    module.plateau = "val_los" if who == "plateau" else None
    with pytest.raises(MLScaleError, match="no 'val_los' was logged") as caught:
        fit(module, folder=tmp_path, more=more)
    assert module.trainer.global_step == 0
    assert caught.value.fix.startswith("write 'monitor: val_loss' there")


def test_a_name_that_training_may_log_is_refused_after_its_first_step(tmp_path: Path) -> None:
    module = Module(val_acc=1.0)
    with pytest.raises(MLScaleError, match="no 'acc' was logged"):
        fit(module, "acc", "max", given=True, folder=tmp_path)
    assert module.trainer.global_step == 1


@pytest.mark.parametrize(
    ("module", "metric"),
    [
        (LogsInTraining(val_acc=1.0), "acc"),
        (Module(val_acc=1.0), "train/loss"),
        (Module(val_acc=1.0), "train_loss"),
        (SilentAtFirst(val_loss=1.0), "val_auroc"),
    ],
)
def test_a_set_metric_that_is_logged_later_is_fine(module: Module, metric: str, tmp_path: Path) -> None:
    _, checkpoints, _ = fit(module, metric, "min", given=True, folder=tmp_path)
    assert checkpoints.best_model_score is not None
