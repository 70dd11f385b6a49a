"""A module and data of the user's own, that know nothing of resuming, go on to the bit after SIGKILL in an epoch."""

import signal
from pathlib import Path

import pytest

from scripts.same_run import differences
from tests.conftest import runs_in
from tests.resume.commands import end, ended

SLOW = pytest.mark.slow

MINE = '''
import random

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Points(Dataset):
    """Moved at random, by all three of the generators that people use."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.x, self.y = torch.randn(96, 16, generator=generator), torch.arange(96) % 3
        self.moved = lambda x: x + 0.1 * torch.randn(16)  # as people write them; it can't be pickled

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.moved(self.x[index]) + random.random() + float(np.random.rand()), self.y[index]


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Points(), 8, shuffle=True, num_workers=2)

    def val_dataloader(self):
        return DataLoader(Points(), 8)


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.ReLU(), nn.Linear(32, 3))

    def loss(self, batch):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)
'''
PARTS = ("task=mine", "data=mine", "model=none", "optimizer=none")
WORDS = (*PARTS, "metric=val/loss", "mode=min", "trainer.max_epochs=3", "snapshot=false", "name=mine")


def write(folder: Path) -> None:
    """Their code and its two options."""
    (folder / "mine.py").write_text(MINE)
    for group, target in (("task", "Module"), ("data", "Data")):
        option = folder / f"conf/{group}/mine.yaml"
        option.parent.mkdir(parents=True)
        option.write_text(f"_target_: mine.{target}\n")


@SLOW
def test_ctrl_c_on_a_terminal_of_two_processes(folder: Path) -> None:
    """It reaches the launcher, the ranks and the workers of their loaders alike."""
    write(folder)
    interrupted = end("stop", folder, whom="group", signum=int(signal.SIGINT), step=3)
    code, printed = ended(folder, *WORDS, "trainer.max_epochs=300", "trainer.devices=2", interrupted)
    assert code == 130, printed
    assert printed.count("error: stopped by SIGINT after optimizer step ") == 1, printed


@pytest.mark.parametrize(
    ("devices", "every", "killed", "went_on"),
    [(1, 5, 18, 15), pytest.param(2, 5, 11, 10, marks=SLOW), pytest.param(2, 100, 15, 12, marks=SLOW)],
    ids=["one process", "two, within an epoch", "two, after an epoch"],
)
def test_it_goes_on_to_the_bit(folder: Path, devices: int, every: int, killed: int, went_on: int) -> None:
    write(folder)
    words = (*WORDS, f"trainer.devices={devices}", f"callbacks.checkpoint.every_n_steps={every}")
    code, printed = ended(folder, *words, "runs_dir=undisturbed")
    assert code == 0, printed
    code, printed = ended(folder, *words, end("step", folder, step=killed))
    assert code == -signal.SIGKILL, printed
    code, printed = ended(folder, "runs", "resume", "last", "trust=true")
    assert code == 0, printed
    assert f"resumed from step {went_on} bitwise identical" in printed  # its data promises nothing, and is compared
    assert " if " not in printed.partition("resumed from step")[2].splitlines()[0]
    (whole,) = runs_in(folder / "undisturbed")
    (run,) = runs_in(folder / "runs")
    assert differences(whole, run) == []
