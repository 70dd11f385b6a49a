"""The probe of a precision where it can't be taken, and where a user's module logs without a trainer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from mlscale.assembly import precision_probe
from mlscale.assembly.run_data import RunData
from mlscale.errors import MLScaleError
from mlscale.launch.local_devices import LocalDevices
from mlscale.profile.precision_trial import MAX_SLOWDOWN, CandidateMeasurement, PrecisionCandidate

LAPTOP = LocalDevices(cuda=0, mps=False, cores=4, cuda_bf16=False)
AUTO = {"value": "${derived.precision}", "probe_seconds": 1.0, "tolerance": 0.05}
CONFIG = OmegaConf.create({"precision": AUTO, "derived": {"precision": None}})
DERIVED = {"accelerator": "cpu", "threads": 1}


class Logs(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.net(batch["x"]).square().mean()
        self.log("train/mine", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MLScaleError("the task drives its optimizers itself", where="task.automatic_optimization"), "the task drives"),
        (RuntimeError("no trainer\n  attached"), "RuntimeError: no trainer"),
    ],
)
def test_a_probe_that_is_not_possible_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(precision_probe, "_compare_candidates", fail)
    probed = precision_probe.settle_precision(CONFIG, DERIVED, LAPTOP, RunData())
    assert probed is not None
    assert probed.outcome == {"precision": "32-true", "memory_format": None}
    assert probed.line.startswith(f"precision fp32, for the probe was not possible: {why}")
    assert "\n" not in probed.line


def test_a_setting_of_the_probe_beside_a_precision_that_was_named_starts_none() -> None:
    cfg = OmegaConf.create({"precision": {"value": "bf16-mixed", "probe_seconds": 5.0}})
    assert not precision_probe.is_auto(cfg)
    assert precision_probe.settle_precision(cfg, DERIVED, LAPTOP, RunData()) is None


@pytest.mark.parametrize("asked", [True, False])
def test_figures_that_are_asked_for_are_taken_of_a_slow_precision_too(
    monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    seen: list[float] = []

    def note(*given: Any) -> Any:
        seen.append(given[-1])
        raise ValueError

    monkeypatch.setattr(precision_probe, "_compare_candidates", note)
    cfg = OmegaConf.create({"precision": {"value": "bf16-mixed", "compare": True}}) if asked else CONFIG
    precision_probe.settle_precision(cfg, DERIVED, LAPTOP, RunData())
    assert seen == [math.inf if asked else MAX_SLOWDOWN]


def test_a_module_that_logs_is_traced_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are errors in tests."""
    monkeypatch.setattr("mlscale.assembly.run_parts.build_task", lambda cfg: Logs())
    monkeypatch.setattr(RunData, "load_first_batches", lambda *_: [{"x": torch.zeros(4, 3)}])
    measured = CandidateMeasurement(PrecisionCandidate(), math.nan, None, math.nan, math.nan)
    assert precision_probe._trace_peak_bytes(CONFIG, DERIVED, RunData(), measured) > 0
