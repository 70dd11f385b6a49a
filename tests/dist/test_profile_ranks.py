"""What a profile of several ranks makes of one that is slower than the others."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from mlscale.assembly.ready import compose_from_overrides
from mlscale.assembly.run_data import RunData
from mlscale.commands.profile.entry import build_profile_result, measure_bound
from mlscale.commands.profile.timed_fits import build_profile_probe
from mlscale.config.composition.frozen import add_derived
from mlscale.config.derive import derive_values
from mlscale.launch.local_devices import detect_local_devices
from mlscale.profile.bound_verdict import find_straggler
from mlscale.profile.step_parts import COMPUTE, EXCHANGE, RANKS, VALIDATION
from mlscale.runs.host.machine import MachineLoad
from mlscale.secrets.mask import Masker

OWN = """
import os
import time

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

SLOW = os.environ.get("RANK") == "1"


class Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(0.1 * SLOW)
        return gradient


class Slow(pl.LightningModule):
    def __init__(self, where="forward"):
        super().__init__()
        self.net, self.where = torch.nn.Linear(4, 1), where
        self.automatic_optimization = where != "manual"

    def on_train_batch_start(self, batch, index):
        time.sleep(0.2 * SLOW * (self.where == "hook"))

    def training_step(self, batch, index):
        time.sleep(0.1 * SLOW * (self.where in ("computing", "manual")))
        out = self.net(batch[0])
        if self.where == "manual":
            self.manual_backward(out.square().mean())
            self.log("train/loss", out.detach().square().mean())
            return self.optimizers().step()
        return (Late.apply(out) if self.where == "computing" else out).square().mean()

    def validation_step(self, batch, index):
        time.sleep(0.3 * (self.where == "validation"))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(96, 4)), 4)

    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(96, 4)), 4)
"""
WORDS = ["task._target_=profiled_ranks.Slow", "data=none", "model=none", "optimizer=none", "metric=train/loss"]


def compose_slow_rank(folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, *words: str) -> DictConfig:
    (folder / "profiled_ranks.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    cfg = compose_from_overrides("profile", [*WORDS, f"task.where={where}", "trainer.devices=2", *words])
    derived = derive_values(cfg, None, detect_local_devices())
    return add_derived(cfg, {**derived, "run_dir": "profile", "name": "profile"})


@pytest.mark.slow
def test_nothing_is_concluded_of_ranks_on_a_machine_with_more_load_than_cores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_slow_rank(folder, monkeypatch, "computing", "profile.seconds=1", "trainer.limit_val_batches=0")
    profile = measure_bound(cfg, None, RunData(), MachineLoad(9.1, 2), Masker.create_for_run(cfg))
    result = build_profile_result(profile, 1.0)
    assert result.details["bound_by"] == "unclear"
    assert result.sentence.startswith("unclear what bounds the run: ")
    assert "the machine is oversubscribed (load 9.1 on 2 cores)" in result.sentence
    assert "computing" not in result.sentence
    assert profile.tried == []


@pytest.mark.parametrize(
    ("where", "largest"),
    [
        ("computing", COMPUTE),  # in the backward pass as well, in which DDP's exchange would hide it
        pytest.param("manual", COMPUTE, marks=pytest.mark.slow),  # Lightning switches DDP's exchange on after a step
        pytest.param("hook", "Slow.on_train_batch_start", marks=pytest.mark.slow),
        pytest.param("validation", None, marks=pytest.mark.slow),
    ],
)
def test_the_rank_that_others_wait_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, largest: str | None
) -> None:
    cfg = compose_slow_rank(folder, monkeypatch, where)
    ranks = build_profile_probe(cfg, None).measure_shares(8)
    assert len(ranks) == 2
    assert (EXCHANGE in ranks[0]) == (where != "manual")  # no hook shows where a manual one would be
    straggler = find_straggler(ranks, RANKS, COMPUTE)
    if largest is None:
        # Data of one's own that states no length: the loader's counts. All ranks validate, and none waits for long.
        assert straggler is None
        assert max(ranks[0], key=lambda part: ranks[0][part]) == VALIDATION
    else:
        assert straggler is not None
        assert (straggler.rank, straggler.part[0]) == (1, largest)
        assert straggler.share > 0.3
