"""What every task gets from `Task`: exact metrics, whatever has weight 0 left out of the loss and of torchmetrics."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanSquaredError, Metric

from mlscale.tasks import Task
from mlscale.tasks.base import EvaluationTally
from mlscale.tasks.batch import Batch
from tests.unit.fitting import SGD, Loader, fit, trainer


class Distance(Task):
    """Numbers from numbers."""

    kind: ClassVar[str] = "regression"
    mean_names: ClassVar[tuple[str, ...]] = ("loss", "above")

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs - batch.y).square().mean(dim=1)

    def means(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return self.losses(outputs, batch), (outputs > batch.y).float().mean(dim=1)

    def metrics(self) -> dict[str, Metric]:
        return {"mse": MeanSquaredError()}

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"value": self(batch["x"])}


def batch(size: int, seed: int, weight: list[float] | None = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    made = {"x": torch.randn(size, 3, generator=generator), "y": torch.randn(size, 1, generator=generator)}
    return made if weight is None else made | {"weight": torch.tensor(weight)}


def distance(**arguments: Any) -> Distance:
    torch.manual_seed(0)
    return Distance(model=nn.Linear(3, 1), optimizer=SGD, **arguments)


def test_samples_of_weight_zero_are_in_no_metric() -> None:
    task = distance()
    data = [batch(4, 0, [1, 0, 1, 0]), batch(2, 1, [0, 0]), batch(3, 2)]
    (metrics,) = trainer().validate(task, Loader(data), verbose=False)
    kept = [(data[0]["x"][[0, 2]], data[0]["y"][[0, 2]]), (data[2]["x"], data[2]["y"])]
    x, y = (torch.cat([pair[part] for pair in kept]) for part in (0, 1))
    error = (task(x) - y).square().mean().item()
    assert metrics["val/mse"] == pytest.approx(error, rel=1e-6)
    assert metrics["val/loss"] == pytest.approx(error, rel=1e-6)
    assert metrics["val/above"] == pytest.approx((task(x) > y).float().mean().item())
    assert set(metrics) == {"val/loss", "val/above", "val/mse"}


def test_each_evaluation_starts_anew_and_leaves_nothing_in_the_state() -> None:
    task, data = distance(), [batch(4, 0)]
    first = trainer().test(task, Loader(data), verbose=False)
    assert trainer().test(task, Loader(data), verbose=False) == first
    assert set(first[0]) == {"test/loss", "test/above", "test/mse"}
    assert set(task.state_dict()) == {"model.weight", "model.bias"}
    assert [name for name, _ in task.named_children()] == ["model"]


def test_a_weighted_batch_is_divided_by_its_size() -> None:
    task, whole = distance(), batch(4, 0)
    plain = task.training_step(whole, 0)
    assert task.training_step(whole | {"weight": torch.ones(4)}, 0).item() == pytest.approx(plain.item())
    assert task.training_step(whole | {"weight": torch.zeros(4)}, 0) == 0


def test_it_learns() -> None:
    task, data = distance(), [batch(8, seed) for seed in range(3)]
    before = trainer().validate(task, Loader(data), verbose=False)[0]["val/loss"]
    fit(trainer(max_epochs=3), task, data, data)
    assert trainer().validate(task, Loader(data), verbose=False)[0]["val/loss"] < before


def test_a_rank_without_samples_keeps_the_shape_of_its_metrics_alone() -> None:
    tally = EvaluationTally(["loss"], {"all": CatMetric(), "mse": MeanSquaredError()}, torch.device("cpu"))
    assert tally.metrics is not None
    every: Any = tally.metrics["all"]
    mse: Any = tally.metrics["mse"]

    def add(value: float) -> None:
        every.update(torch.full((2,), value))
        mse.update(torch.full((2,), value), torch.zeros(2))

    for _ in range(2):
        tally.update_without_samples(lambda _: add(5.0))
        assert [each.shape for each in every.value] == [(0,)]
        assert (mse.total.item(), mse.sum_squared_error.item()) == (0, 0)
    tally.update_metrics(lambda _: add(1.0))
    tally.update_without_samples(lambda _: add(7.0))
    values = tally.compute_values(lambda sums: sums)
    assert values["all"].tolist() == [1.0, 1.0]
    assert values["mse"] == 1
