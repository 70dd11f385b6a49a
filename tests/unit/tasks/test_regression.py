"""Regression: in the target's own units, whatever the model learns in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mlscale.data.data_facts import DataFacts
from mlscale.errors import MLScaleError
from mlscale.tasks import Regression, TabularNet
from mlscale.tasks.batch import Batch

X = torch.linspace(-1, 1, 64)[:, None]
Y = 1000 + 50 * X


class Data(LightningDataModule):
    def __init__(self, y: torch.Tensor = Y) -> None:
        super().__init__()
        self.y = y

    def facts(self) -> DataFacts:
        mean, std = (tuple(values.tolist()) for values in (self.y.mean(0), self.y.std(0, correction=0)))
        return DataFacts(
            train_samples=64, val_samples=64, version="0", sample=(1,), targets=1, target_mean=mean, target_std=std
        )

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X, self.y), batch_size=16)

    val_dataloader = train_dataloader


def task(**settings: Any) -> Regression:
    torch.manual_seed(0)
    optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0)  # noqa: E731
    return Regression(1, model=TabularNet(1, 1, blocks=0), optimizer=optimizer, **settings)


def trainer(epochs: int = 1) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> tuple[Regression, dict[str, float]]:
    module, fit = task(), trainer(30)
    fit.fit(module, datamodule=Data())
    return module, {name: float(value) for name, value in fit.callback_metrics.items()}


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
class TestTraining:
    def test_predictions_are_in_the_targets_own_units(self, trained: tuple[Regression, dict[str, float]]) -> None:
        module, metrics = trained
        assert module.predict_step((X, Y), 0)["value"].flatten().tolist() == pytest.approx(Y.flatten().tolist(), abs=5)
        assert metrics["val/mae"] < 5
        assert metrics["val/mae"] <= metrics["val/rmse"]
        assert metrics["val/r2"] > 0.98
        assert metrics["val/loss"] == pytest.approx(metrics["val/rmse"] ** 2 / float(module.target_std) ** 2, rel=1e-3)

    def test_weights_keep_their_units_on_other_data(self, trained: tuple[Regression, dict[str, float]]) -> None:
        module, fit = task(), trainer()
        module.load_state_dict(trained[0].state_dict())
        fit.fit(module, datamodule=Data(Y * 1000))
        assert float(module.target_mean) == pytest.approx(1000)


def test_losses_are_in_deviations() -> None:
    module = task()
    module.target_mean.fill_(100.0)
    module.target_std.fill_(10.0)
    given = Batch(X[:2], torch.tensor([[120.0], [100.0]]), None)
    assert module.losses(module(given.x), given).tolist() == pytest.approx([4.0, 0.0])
    huber = task(loss="huber", delta=1.0)
    huber.load_state_dict(module.state_dict())
    assert huber.losses(huber(given.x), given).tolist() == pytest.approx([1.5, 0.0])


def test_r2_of_one_sample_is_unknown() -> None:
    module = task()
    metrics = module.metrics()
    metrics["r2"].update(torch.ones(1), torch.ones(1))
    assert metrics["r2"].compute().isnan()


@pytest.mark.parametrize("settings", [{"loss": "absolute"}, {"loss": "huber", "delta": 0.0}])
def test_a_loss_that_is_none(settings: dict[str, Any]) -> None:
    with pytest.raises(MLScaleError, match=r"task\.loss is"):
        task(**settings)


def test_another_number_of_targets_is_reported() -> None:
    with pytest.raises(MLScaleError, match=r"the model gives \(4, 3\), the data \(4, 1\), the task has 1 target"):
        Regression(1, model=nn.Linear(1, 3)).training_step((X[:4], Y[:4]), 0)
    with pytest.raises(MLScaleError, match="numbers to predict"):
        task().training_step((X[:4], torch.zeros(4, dtype=torch.int64)), 0)
