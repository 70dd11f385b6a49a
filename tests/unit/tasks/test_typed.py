"""A task whose loss and predictions are a task type's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlscale import api
from mlscale.config.checks.data_model_fit import check_data_fit
from mlscale.config.metric_choice import derive_metric
from mlscale.errors import MLScaleError
from mlscale.task_types import registry
from mlscale.task_types.regression_type import RegressionType
from mlscale.tasks import TypedTask
from tests.unit.fitting import Loader, trainer


class Medians(RegressionType):
    name = "medians"
    default_metric = "val/loss"

    def compute_losses(self, outputs: Any, y: Tensor) -> Tensor:
        losses: Tensor = (outputs - y).abs().mean(1)
        return losses

    def convert_outputs(self, outputs: Any) -> dict[str, Tensor]:
        return {"value": outputs}


@pytest.fixture
def medians(monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry.find_task_type
    monkeypatch.setattr(registry, "find_task_type", lambda name: Medians() if name == "medians" else known(name))


@pytest.mark.usefixtures("medians")
def test_the_type_defines_the_loss_and_the_predictions() -> None:
    task = TypedTask("medians", model=nn.Linear(3, 1))
    batch = {"x": torch.randn(4, 3), "y": torch.randn(4, 1)}
    (metrics,) = trainer().validate(task, Loader([batch]), verbose=False)
    assert metrics["val/loss"] == pytest.approx((task(batch["x"]) - batch["y"]).abs().mean().item())
    assert task.predict_step(batch, 0)["value"].shape == (4, 1)
    assert registry.get_task_kind(task) == "medians"


@pytest.mark.usefixtures("medians")
def test_its_config_is_checked_and_judged_by_the_type() -> None:
    words = ["task._target_=mlscale.tasks.TypedTask", "task.task_type=medians", "data=digits"]
    cfg = api.compose(words)
    assert derive_metric(cfg) == {"metric": "val/loss", "mode": "min"}
    problems = [problem.what for problem in check_data_fit(cfg, {"num_classes": 10, "channels": 1})]
    assert problems == ["a medians task predicts numbers, and this data has classes"]


def test_an_unknown_type_is_an_error() -> None:
    with pytest.raises(MLScaleError, match="unknown task type 'medians'"):
        TypedTask("medians", model=nn.Linear(3, 1))
