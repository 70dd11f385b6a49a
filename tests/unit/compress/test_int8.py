"""What int8 in a run refuses before the first step, and what does not end a run that has trained."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from mlscale.compress import int8
from mlscale.errors import MLScaleError
from mlscale.export.served_module import require_predictions


class TrainsAlone(LightningModule):
    """A module that trains without a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)


class HasForward(TrainsAlone):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


class HasStep(TrainsAlone):
    kind: ClassVar[str] = "classification"

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"logits": self.layer(batch["x"])}


class StatesNoType(HasStep):
    kind: ClassVar[None] = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [TrainsAlone, StatesNoType])
def test_a_task_without_predictions_is_refused_before_the_first_step(kind: type[LightningModule]) -> None:
    with pytest.raises(MLScaleError, match=f"{kind.__name__} has no forward") as caught:
        int8.Int8().setup(Trainer(logger=False, enable_checkpointing=False), kind(), "fit")
    name = f"{__name__}.{kind.__name__}"
    assert caught.value.fix == f"define forward(self, x) in {name}: it returns the predictions of a batch, (n, …)"


@pytest.mark.parametrize("kind", [HasForward, HasStep])
def test_a_task_with_predictions_passes(kind: type[LightningModule]) -> None:
    require_predictions(kind())


def raise_for_another_batch(*arguments: Any) -> None:
    raise ValueError("only batches of 30")


def test_what_the_users_code_raises_does_not_end_a_run_that_has_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "load_best_checkpoint", raise_for_another_batch)
    trainer = Trainer(logger=False, enable_checkpointing=False)
    outcome = int8.Int8().after_fit(trainer, HasForward())
    assert outcome.ok
    assert outcome.remark.startswith("int8 failed: ValueError: only batches of 30: your code raised it: ")
    assert "in raise_for_another_batch" in outcome.remark
    assert not int8.Int8(required=True).after_fit(trainer, HasForward()).ok
    # A fault that is not the user's is not hidden: here json's, of what it is given.
    monkeypatch.setattr(int8, "load_best_checkpoint", json.JSONDecoder().decode)
    with pytest.raises(TypeError):
        int8.Int8().after_fit(trainer, HasForward())
