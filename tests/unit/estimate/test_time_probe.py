"""From a short run to the whole: what is measured, and what follows from it."""

import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from mlscale.estimate import time_probe as probe
from mlscale.estimate.time_probe import Clock, EpochMoments, RunLength, Timing


def timing(**values: Any) -> Timing:
    usual = {"pass_s": 0.1, "validation_s": 0.2, "epoch_s": 0.5, "epochs": 3, "passes": 10, "validation_batches": 2}
    return Timing(**usual | values)


def epoch(start: float, passes: list[float], validation: list[float], end: float) -> EpochMoments:
    made = EpochMoments(start)
    made.passes, made.validation, made.end = passes, validation, end
    return made


def test_the_first_epoch_warms_up_and_is_left_out() -> None:
    slow = epoch(0, [5, 9], [10, 15], 20)
    steady = [epoch(20, [21, 22, 23], [24, 26], 27), epoch(27, [28, 29, 30], [31, 33], 34)]
    found = probe.summarise_timing([slow, *steady], all_passes=30)
    assert (found.pass_s, found.validation_s) == (1.0, 2.0)
    assert found.epoch_s == 0.0  # 7 s, of which 3 passes and 2 batches of validation took 7
    assert (found.epochs, found.passes, found.validation_batches, found.all_passes) == (3, 3, 2, 30)


def test_how_steady_it_was() -> None:
    steady = epoch(0, [0, 1, 2, 3, 4], [], 4)
    slower = epoch(4, [4, 5, 6, 8, 10], [], 10)  # twice as slow in its second half
    assert probe.summarise_timing([steady, steady, steady]).spread == 0.0
    assert probe.summarise_timing([steady, steady, slower]).spread == pytest.approx((2 - 1) / 2 / 1.25)


def test_one_epoch_of_one_pass_is_all_epoch() -> None:
    found = probe.summarise_timing([epoch(0, [2], [], 3)])
    assert (found.pass_s, found.validation_s, found.epoch_s) == (0.0, 0.0, 3.0)


def test_a_whole_run() -> None:
    work = RunLength(passes=1000, epochs=10, validations=10, validation_batches=5)
    assert probe.estimate_run_seconds(timing(), work, startup_seconds=3.0) == pytest.approx(3 + 100 + 10 + 5)


def test_what_is_slower_the_first_time() -> None:
    first = timing(epochs=1, passes=3, validation_batches=2)
    assert probe.estimate_startup_seconds(4.0, first, timing()) == pytest.approx(4 - (0.3 + 0.4 + 0.5))
    assert probe.estimate_startup_seconds(0.1, first, timing()) == 0.0


@pytest.mark.parametrize(
    ("seconds", "passes", "validation", "of", "found"),
    [
        (30, 22, 6, 1, (22, 6)),  # all of a short epoch
        (30, 10_000, 500, 1, (80, 10)),  # ten seconds an epoch: eight for training
        (30, 10_000, 500, 3, (78, 10)),  # whole steps of three passes
        (0.001, 10_000, 500, 1, (10, 2)),  # fewer say nothing
        (30, None, None, 1, (80, 10)),
        (30, 22, 0, 1, (22, 0)),
    ],
)
def test_how_long_a_probe_is(
    seconds: float, passes: int | None, validation: int | None, of: int, found: tuple[int, int]
) -> None:
    assert probe.limit_probe_epoch(timing(), seconds, passes, validation, of) == found


class Sleepy(pl.LightningModule):
    """Each training batch waits for 20 ms, each batch of validation for 10."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        time.sleep(0.02)
        loss: Tensor = self.layer(batch[0]).mean()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        time.sleep(0.01)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_clock_reads_a_fit(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 1)), batch_size=1)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=5,
        limit_val_batches=4,
        callbacks=[Clock(str(path))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.perf_counter()
    trainer.fit(Sleepy(), data, data)
    seconds = time.perf_counter() - start
    found = probe.read_timing(path)
    assert (found.epochs, found.passes, found.validation_batches) == (2, 5, 4)
    assert (found.all_passes, found.all_validation_batches) == (8, 8)
    assert found.pass_s > 0.02
    assert found.validation_s > 0.01
    assert found.epoch_s >= 0
    # Upper bounds that hold on a busy machine, too: the parts are the fit's, and no more than it.
    assert (4 * found.pass_s + 3 * found.validation_s) < seconds
