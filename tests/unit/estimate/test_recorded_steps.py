"""The peak of real steps, as a fit requests it from torch's allocator."""

from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mlscale.estimate.recorded_steps import RecordedSteps, measure_step_peak

MIB = 2**20
BATCH, STEP, MODEL = MIB, 8 * MIB, 2 * MIB


class Data(LightningDataModule):
    """64 MiB of samples, which are no part of a step."""

    def setup(self, stage: str) -> None:
        self.samples = TensorDataset(torch.zeros(64, MIB // 4))

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=1)


class Task(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(MODEL // 4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        held = torch.empty(STEP // 4)  # nothing but the allocator knows of it
        return self.weight.sum() * 0 + batch[0].sum() + held.shape[0]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_model_batch_and_what_a_step_holds_without_the_data() -> None:
    def fit() -> None:
        trainer = Trainer(
            accelerator="cpu", max_steps=3, callbacks=[RecordedSteps()], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Task(), datamodule=Data())

    # The gradient of the step before is there until the forward pass is over.
    assert measure_step_peak(fit) == pytest.approx(MODEL + MODEL + BATCH + STEP, rel=0.01)
