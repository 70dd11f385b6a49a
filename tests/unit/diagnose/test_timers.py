"""Two timers: what they call a wait, in a fit of Lightning's own and in moments that are made up."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from mlscale.diagnose.replay import Repeated, Replay
from mlscale.diagnose.timers import Epoch, TwoTimers, parts, read

WAIT, WORK = 0.02, 0.03


class Task(pl.LightningModule):
    """A step that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        time.sleep(WORK)
        loss: torch.Tensor = self.layer(batch).mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Waiting:
    """A loader of twelve batches that each takes its time; sized or not."""

    def __init__(self) -> None:
        self.asked = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(12):
            time.sleep(WAIT)
            self.asked += 1
            yield torch.ones(4, 2)


class Sized(Waiting):
    def __len__(self) -> int:
        return 12


class Data(pl.LightningDataModule):
    def __init__(self, loader: Waiting) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> Any:
        return self.loader


def fitted(path: Path, loader: Waiting, *callbacks: pl.Callback) -> list[Epoch]:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        profiler=TwoTimers(str(path)),
        default_root_dir=path.parent,
    )
    trainer.fit(Task(), datamodule=Data(loader))
    return read(path)


@pytest.mark.parametrize("kind", [Sized, Waiting])
def test_the_wait_and_the_rest_of_a_step(tmp_path: Path, kind: type[Waiting]) -> None:
    """Also notices when Lightning calls the actions that are timed otherwise."""
    epochs = fitted(tmp_path / "times.json", kind())
    assert [len(epoch.done) for epoch in epochs] == [12, 12]
    found = parts(epochs, 4)
    assert found.steps == 20
    assert found.wait >= 20 * WAIT  # two epochs of twelve, but for the warm-up's; the first of the second among them
    assert found.rest >= 20 * WORK
    assert found.between > 0
    assert found.wait / found.steps < WAIT + WORK / 2  # the work is no wait
    assert found.total == pytest.approx(found.wait + found.rest + found.between)


def test_a_replayed_batch_takes_the_wait_away(tmp_path: Path) -> None:
    loader = Sized()
    found = parts(fitted(tmp_path / "times.json", loader, Replay()), 4)
    assert loader.asked == 1
    assert found.steps == 20
    assert found.wait < 20 * WAIT / 10


def test_a_loader_without_batches() -> None:
    with pytest.raises(ValueError, match="no batch"):
        Repeated(DataLoader(TensorDataset(torch.empty(0, 2))))


def test_a_repeated_batch_has_the_length_of_its_loader() -> None:
    repeated = Repeated(Sized())
    assert len(list(repeated)) == len(repeated) == 12
    endless = Repeated(Waiting())
    assert len([batch for batch, _ in zip(endless, range(50), strict=False)]) == 50
    with pytest.raises(TypeError):
        len(endless)


def test_parts_of_moments() -> None:
    first = Epoch([0.0, 2.0, 4.0], [1.0, 2.5, 4.5], [2.0, 4.0, 6.0])
    second = Epoch([7.0, 10.0, 12.0], [9.0, 10.25, 12.5], [10.0, 12.0])  # asked once more than there is
    found = parts([first, second], 1)
    assert (found.steps, found.total) == (4, 10.0)
    assert found.wait == 0.5 + 0.5 + 2 + 0.25
    assert found.between == 1.0
    assert found.rest == 10 - 3.25 - 1
    assert found.step == 2.5
    assert found.predicted == 10 / 6.75


@pytest.mark.parametrize("warm_up", [0, 3, 4])
def test_nothing_is_left_after_the_warm_up(warm_up: int) -> None:
    with pytest.raises(ValueError, match="steps"):
        parts([Epoch([0.0, 1.0, 2.0], [0.5, 1.5, 2.5], [1.0, 2.0, 3.0])], warm_up)
