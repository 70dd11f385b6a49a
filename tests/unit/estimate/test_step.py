"""Training steps without a trainer: the same weights as Lightning's loop makes."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from mlscale.errors import MLScaleError
from mlscale.estimate.live_tensors import LiveTensorMode
from mlscale.estimate.step import StepSettings, run_two_steps


class Task(pl.LightningModule):
    def __init__(self, automatic: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2)
        self.automatic_optimization = automatic

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": self.layer(batch[0]).square().mean()}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1000)}]


def test_as_lightning_steps() -> None:
    x = torch.arange(24.0).reshape(6, 4) / 24
    ours, theirs = Task(), Task()
    run_two_steps(ours, [x], StepSettings(passes=2, clip=0.5), LiveTensorMode())
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x.repeat(4, 1)), batch_size=6)
    trainer.fit(theirs, data)
    assert not torch.equal(ours.layer.weight, Task().layer.weight)
    assert torch.allclose(ours.layer.weight, theirs.layer.weight, rtol=1e-6, atol=0)


def test_half_precision_weights() -> None:
    task, live = Task(), LiveTensorMode()
    run_two_steps(task, [torch.ones(6, 4)], StepSettings("bf16-true"), live)
    assert task.layer.weight.dtype == torch.bfloat16
    assert live.split_peak()["parameters"] == 2 * (8 + 2)


@pytest.mark.parametrize(
    ("task", "loop", "what"),
    [
        (Task(automatic=False), StepSettings(), "the task drives its optimizers itself"),
        (Task(), StepSettings("transformer-engine"), "memory of precision transformer-engine is not known"),
    ],
)
def test_what_it_does_not_do(task: Task, loop: StepSettings, what: str) -> None:
    with pytest.raises(MLScaleError, match=what):
        run_two_steps(task, [torch.ones(6, 4)], loop, LiveTensorMode())
