"""Of several short fits one reports the metric that is chosen."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from mlscale.cli import main
from mlscale.errors import Exit

OWN = """
import os
import signal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


def loader():
    return DataLoader(TensorDataset(torch.ones(8, 2)), 2)


class Quadratic(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch, index):
        self.log("val/loss", self.net(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader()
"""
STOPPING = """

class Stopping(Quadratic):
    def training_step(self, batch, index):
        if callable(signal.getsignal(signal.SIGTERM)):  # in a fit; elsewhere it would end the tests
            os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, index)
"""
WORDS = ["task._target_=short_fits_own.Quadratic", "data=none", "model=none", "optimizer=none"]


@pytest.fixture
def no_handler() -> Iterator[None]:
    """No handler of SIGTERM outside of a fit: torch's elastic agent leaves its own behind, in tests before this one."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("no_handler")
@pytest.mark.parametrize("command", ["estimate", "profile"])
def test_a_short_fit_that_is_stopped_names_the_command_that_was_typed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short_fits_stopping.py").write_text(dedent(OWN + STOPPING))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["task._target_=short_fits_stopping.Stopping", *WORDS[1:]]
    assert main([command, *words]) == Exit.TERMINATED
    error = capsys.readouterr().err
    assert f"stopped by SIGTERM after optimizer step 1, in a short fit that mlscale {command} measures" in error
    assert f"fix:   mlscale {command} <the same words>" in error
    # Neither can be used: the folder is removed, and a short fit leaves no run behind.
    assert "runs resume" not in error
    assert "where:" not in error
