"""Two timers: what they call a wait, in a fit of Lightning's own and in moments that are made up."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from mlscale.profile.replay_loader import RepeatedBatch, Replay
from mlscale.profile.step_timers import EpochTimes, TwoTimers, compute_step_times, read_epoch_times

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


def fitted(path: Path, loader: Waiting, *callbacks: pl.Callback) -> list[EpochTimes]:
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
    return read_epoch_times(path)


@pytest.mark.parametrize("kind", [Sized, Waiting])
def test_the_wait_and_the_rest_of_a_step(tmp_path: Path, kind: type[Waiting]) -> None:
    """Also notices when Lightning calls the actions that are timed otherwise."""
    epochs = fitted(tmp_path / "times.json", kind())
    assert [len(epoch.done) for epoch in epochs] == [12, 12]
    found = compute_step_times(epochs, 4, None)
    assert found.steps == 20
    assert WAIT * 0.9 <= found.wait < WAIT + WORK / 2  # the work is no wait
    assert found.step - found.wait >= WORK
    assert found.between == 0  # of an epoch that is taken for endless
    assert compute_step_times(epochs, 4, 12).between > 0


def test_a_replayed_batch_takes_the_wait_away(tmp_path: Path) -> None:
    loader = Sized()
    found = compute_step_times(fitted(tmp_path / "times.json", loader, Replay()), 4, 12)
    assert loader.asked == 1
    assert found.steps == 20
    assert found.wait < WAIT / 10


def test_a_loader_without_batches() -> None:
    with pytest.raises(ValueError, match="no batch"):
        RepeatedBatch(DataLoader(TensorDataset(torch.empty(0, 2))))


def test_a_repeated_batch_has_the_length_of_its_loader() -> None:
    repeated = RepeatedBatch(Sized())
    assert len(list(repeated)) == len(repeated) == 12
    endless = RepeatedBatch(Waiting())
    assert len([batch for batch, _ in zip(endless, range(50), strict=False)]) == 50
    with pytest.raises(TypeError):
        len(endless)


FIRST = EpochTimes([0.0, 2.0, 4.0], [1.0, 2.5, 4.5], [2.0, 4.0, 6.0])
SECOND = EpochTimes([7.0, 12.0, 14.0], [10.0, 12.25, 14.5], [12.0, 14.0])  # asked once more than there is


def test_the_start_of_an_epoch_is_shared_among_its_steps() -> None:
    """A step with the start of its epoch takes 6 and waits 3, the others take 2 and wait 0.5, 0.5 and 0.25."""
    wait = 1.25 / 3
    for length, share in ((1, 1.0), (2, 0.5), (10, 0.1), (None, 0.0)):
        found = compute_step_times([FIRST, SECOND], 1, length)
        assert found.steps == 4
        assert found.step == pytest.approx(share * 6 + (1 - share) * 2)
        assert found.wait == pytest.approx(share * 3 + (1 - share) * wait)
        assert found.between == pytest.approx(share * 1)
        assert found.predicted == pytest.approx(found.step / (found.step - found.wait))


def test_epochs_of_one_step() -> None:
    one = [EpochTimes([start], [start + 1], [start + 3.0]) for start in (0.0, 4.0, 8.0)]
    for length in (1, None):
        found = compute_step_times(one, 1, length)
        assert (found.steps, found.step, found.wait, found.between) == (2, 4.0, 1.0, 1.0)


def test_one_epoch() -> None:
    found = compute_step_times([FIRST], 1, 3)
    assert (found.steps, found.step, found.wait, found.between) == (2, 2.0, 0.5, 0.0)


def test_nothing_is_left_after_the_warm_up() -> None:
    with pytest.raises(ValueError, match="steps"):
        compute_step_times([FIRST], 3, 3)
