"""The gradient's norm: that of torch, at the steps of the entries, before clipping."""

from math import isfinite
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from mlscale.errors import MLScaleError
from mlscale.train.callbacks import GradNorm, TrainMetrics
from mlscale.train.callbacks.grad_norm import compute_grad_norms
from mlscale.train.precision import Mixed
from tests.unit.fitting import batches, classifier, fit, trainer
from tests.unit.train.callbacks.test_train_metrics import Recorder


class Norms(pl.Callback):
    """What torch says at every step: before clipping, and after."""

    def __init__(self) -> None:
        self.before: list[float] = []
        self.after: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.before.append(_norm(pl_module))

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if any(part.grad is not None for part in pl_module.parameters()):
            self.after.append(_norm(pl_module))


def _norm(module: nn.Module) -> float:
    return float(torch.cat([part.grad.flatten() for part in module.parameters() if part.grad is not None]).norm())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_is_torchs_norm_at_the_steps_of_the_entries(accumulate: int) -> None:
    recorder, truth = Recorder(), Norms()
    run = trainer(
        logger=recorder, callbacks=[truth, TrainMetrics(), GradNorm()], accumulate_grad_batches=accumulate, max_epochs=2
    )
    fit(run, classifier(), batches(5 * accumulate))
    assert recorder.of("train/grad_norm") == [(i, pytest.approx(truth.before[i], rel=1e-5)) for i in (1, 3, 6, 8)]
    assert run.callback_metrics["train/grad_norm"] == pytest.approx((truth.before[6] + truth.before[8]) / 2, rel=1e-5)


def test_a_step_that_overflows_is_reported_and_not_in_the_mean_of_the_epoch() -> None:
    plugin, recorder = Mixed("cpu", 2.0**24), Recorder()
    run = trainer(logger=recorder, callbacks=[TrainMetrics(), GradNorm()], log_every_n_steps=1)
    run.strategy.precision_plugin = plugin
    fit(run, classifier(), batches(12))
    reported = [norm for _, norm in recorder.of("train/grad_norm")]
    taken = [norm for norm in reported if isfinite(norm)]
    assert 0 < plugin.skipped == 12 - len(taken)
    assert run.callback_metrics["train/grad_norm"] == pytest.approx(sum(taken) / len(taken))


@pytest.mark.parametrize(("algorithm", "largest"), [("norm", 0.01), ("value", 0.01 * 8**0.5)])
def test_clipping_by_norm_and_by_value(algorithm: str, largest: float) -> None:
    truth = Norms()
    recorder = Recorder()
    run = trainer(
        callbacks=[truth, TrainMetrics(), GradNorm()],
        logger=recorder,
        gradient_clip_val=0.01,
        gradient_clip_algorithm=algorithm,
    )
    fit(run, classifier(), batches(6))
    assert max(truth.after) <= largest * (1 + 1e-4) < min(truth.before)
    assert [norm for _, norm in recorder.of("train/grad_norm")] == pytest.approx(truth.before[1::2], rel=1e-5)


def test_layers_of_a_compiled_model_are_called_as_those_of_the_model() -> None:
    compiled: Any = torch.compile(nn.Sequential(nn.Linear(3, 2)), backend="eager")
    model = nn.ModuleDict({"net": compiled})
    torch.autograd.backward(model["net"](torch.ones(1, 3)).sum())
    assert set(compute_grad_norms(model, per_layer=True)) == {"train/grad_norm", "train/grad_norm/net.0"}


def test_layers_add_up_and_a_sparse_gradient_counts() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(5, 3, sparse=True), "head": nn.Linear(3, 2), "idle": nn.Linear(2, 2)})
    rows = model["table"](torch.tensor([1, 1, 4]))
    torch.autograd.backward(model["head"](rows).square().sum())
    found = compute_grad_norms(model, per_layer=True)
    assert set(found) == {"train/grad_norm", "train/grad_norm/table", "train/grad_norm/head"}
    parts = [part.grad.to_dense().flatten() for part in model.parameters() if part.grad is not None]
    assert float(found["train/grad_norm"]) == pytest.approx(float(torch.cat(parts).norm()), rel=1e-6)
    squares = [float(found[f"train/grad_norm/{name}"]) ** 2 for name in ("table", "head")]
    assert sum(squares) ** 0.5 == pytest.approx(float(found["train/grad_norm"]), rel=1e-6)
    assert compute_grad_norms(nn.Linear(2, 2)) == {}


def test_without_entries_it_says_what_to_type() -> None:
    with pytest.raises(MLScaleError, match=r"entries of callbacks\.metrics, which is off") as reported:
        fit(trainer(callbacks=[GradNorm()]), classifier(), batches(2))
    assert reported.value.fix == "callbacks=[default,grad_norm]"
