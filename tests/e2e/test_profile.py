"""`mlscale profile`, as a user types it: data that is slow, a model that is heavy, a run that was made."""

from pathlib import Path

import pytest

from mlscale import commands
from mlscale.cli import main
from tests.conftest import runs_in

SHORT = """
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class Points(pl.LightningDataModule):
    def train_dataloader(self):
        points = torch.randn(64, 8)
        return DataLoader(TensorDataset(points, points.sum(1, keepdim=True)), 32)

    val_dataloader = train_dataloader


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.randn(64, 8).split(1))


class Streamed(Points):
    def train_dataloader(self):
        return DataLoader(Stream(), 32, collate_fn=lambda rows: (torch.cat(rows), torch.cat(rows).sum(1, keepdim=True)))


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, index):
        return (self(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch, index):
        self.log("val/loss", self.training_step(batch, index))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""
OWN = """
import time

import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset, TensorDataset


class Slow(Dataset):
    def __init__(self, samples=512, seconds=0.004):
        self.targets = [i % 10 for i in range(samples)]
        self.seconds = seconds

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return torch.full((1, 8, 8), index % 10 / 10), self.targets[index]


def quick(samples=512):
    return TensorDataset(torch.rand(samples, 1, 8, 8), torch.arange(samples) % 10)


class Sleeper(pl.Callback):
    def on_train_batch_end(self, *_):
        time.sleep(0.1)


class Heavy(torch.nn.Module):
    def __init__(self, num_classes=10, width=2200):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, width),
            torch.nn.Linear(width, width), torch.nn.Linear(width, num_classes),
        )

    def forward(self, x):
        return self.net(x)
"""
DATA = ["data=none", "data._target_=mlscale.data.DatasetData", "data.batch_size=8", "scheduler=none"]


def own(kind: str) -> list[str]:
    return [
        *DATA,
        f"data.train._target_=profiled_parts.{kind}",
        f"data.val._target_=profiled_parts.{kind}",
        "data.val.samples=32",
    ]


@pytest.fixture
def parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "profiled_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1200)  # loading processes start for each fit: seconds alone, minutes on a busy machine
def test_slow_data_bounds_the_run_and_processes_are_the_proven_remedy(parts: Path) -> None:
    found = commands.run_command("profile", [*own("Slow"), "model=mlp", "profile.seconds=1"])
    assert found.ok
    assert found.details["bound_by"] == "data", found.sentence
    assert "the step waits for data" in found.sentence
    assert found.metrics["wait_per_step_ms"] >= 8 * 4  # what eight samples sleep
    assert found.metrics["wait_percent"] > 40
    assert found.metrics["headspace_ratio"] > 1.5
    assert found.details["remedy"] == "data.executor=process", found.sentence
    assert "type data.executor=process, proven" in found.sentence
    assert found.metrics["data.executor=process_ratio"] > 1.05
    assert not runs_in(parts)  # nothing is left behind
    assert len(found.figures) == 3


@pytest.mark.slow
def test_a_heavy_model_does_not_wait(parts: Path) -> None:
    heavy = ["model=none", "model._target_=profiled_parts.Heavy"]
    found = commands.run_command("profile", [*own("quick"), *heavy, "profile.seconds=1", "profile.remedies=false"])
    assert found.details["bound_by"] != "data", found.sentence
    assert found.metrics["wait_percent"] < 10
    assert found.metrics["predicted_headspace_ratio"] < 1.12
    assert "remedy" not in found.details
    assert "proven" not in found.sentence


@pytest.mark.slow
def test_a_callback_that_takes_the_time_is_named_and_left_out_in_a_trial(parts: Path) -> None:
    slow = ["+callbacks.mine._target_=profiled_parts.Sleeper", "model=mlp", "profile.seconds=0.2"]
    found = commands.run_command("profile", [*own("quick"), *slow])
    assert found.details["bound_by"] == "callback Sleeper", found.sentence
    assert found.metrics["callback Sleeper_percent"] > 50
    assert "computing bounds" not in found.sentence
    assert found.details["remedy"] == "~callbacks.mine", found.sentence
    assert found.metrics["~callbacks.mine_ratio"] > 2


def test_epochs_that_are_shorter_than_the_warm_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their length is known by the loader alone, or by nobody."""
    (folder / "short_epochs.py").write_text(SHORT)
    monkeypatch.syspath_prepend(folder)
    words = ["name=short", "task._target_=short_epochs.Net", "model=none", "optimizer=none", "metric=val/loss"]
    words += ["trainer.accelerator=cpu", "trainer.max_epochs=3", "profile.seconds=2", "profile.remedies=false"]
    for data in ("Points", "Streamed"):
        found = commands.run_command("profile", [*words, f"data._target_=short_epochs.{data}"])
        assert found.metrics["validation_percent"] > 0


def test_of_a_run_that_was_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one step an epoch, too: every wait is at the start of one."""
    made = commands.run_command("train", ["recipe=resnet", "model=mlp", "debug=fast", "snapshot=false"])
    words = ["profile", "last", "profile.seconds=0.2", "profile.remedies=false"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    page = Path(made.artifacts["run"]) / "results/profile.html"
    assert page.is_file(), printed.err
    assert "perfect loader" in page.read_text()
    assert str(page) in printed.out


def test_too_short_to_be_measured_and_no_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "+recipe=resnet", "profile.seconds=0"]) == 2
    assert "'profile.seconds' must be float > 0" in capsys.readouterr().err
