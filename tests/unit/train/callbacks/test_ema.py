"""The average of the weights: what it is, where it stands in for them, and what Lightning's own does not do."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from mlscale.errors import MLScaleError
from mlscale.tasks import MLP
from mlscale.train.callbacks import EMA
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file
from tests.unit.fitting import At, Loader, batches, classifier, fit, trainer


class Weights(pl.Callback):
    """The model's first weight after every optimizer step, and during every validation."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.validated: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.steps.append(first(pl_module))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.validated.append(first(pl_module))


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return Loader(batches(4))

    val_dataloader = train_dataloader


def first(module: nn.Module) -> Tensor:
    return next(module.parameters()).detach().clone()


@pytest.mark.parametrize("warmup", ["none", "timm", "tensorflow", "karras", "polyak"])
def test_the_average_is_that_of_its_formula(warmup: Any) -> None:
    average, seen = EMA(decay=0.9, warmup=warmup, every=1), Weights()
    task = classifier()
    fit(trainer(callbacks=[average, seen]), task, batches(6))
    expected = seen.steps[0].double()
    for t, weights in enumerate(seen.steps[1:], 1):
        keeps = {
            "none": 0.9,
            "timm": min(0.9, 1 - (1 + t) ** (-2 / 3)),
            "tensorflow": min(0.9, (1 + t) / (10 + t)),
            "karras": (1 - 1 / (t + 1)) ** 7.94,
            "polyak": 1 - 1 / (t + 1),
        }[warmup]
        expected = keeps * expected + (1 - keeps) * weights.double()
    torch.testing.assert_close(first(task).double(), expected, rtol=1e-5, atol=1e-6)
    if warmup == "polyak":
        torch.testing.assert_close(first(task), torch.stack(seen.steps).mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen.validated[-1], first(task))


def test_the_warm_up_is_timms() -> None:
    utils = pytest.importorskip("timm.utils")
    timms = utils.ModelEmaV3(nn.Linear(1, 1), decay=0.99, use_warmup=True)
    ours = EMA(decay=0.99, warmup="timm", every=1)
    assert [ours.compute_decay(n) for n in range(1, 2000, 7)] == [timms.get_decay(n + 1) for n in range(1, 2000, 7)]


def test_rare_updates_average_over_as_many_steps() -> None:
    assert EMA(decay=0.999, warmup="none", every=10).compute_decay(3) == pytest.approx(0.999**10)
    seen, average = Weights(), EMA(decay=0.5, warmup="none", every=3, start=2)
    task = classifier()
    fit(trainer(callbacks=[average, seen]), task, batches(7))
    torch.testing.assert_close(first(task), 0.125 * seen.steps[2] + 0.875 * seen.steps[5])


@pytest.mark.parametrize("warmup", ["timm", "karras"])
def test_by_default_it_is_renewed_at_every_tenth_step_and_nearly_what_it_would_be_at_each(warmup: Any) -> None:
    weights, ends = [], []
    for average in (EMA(decay=0.98, warmup=warmup, every=1), EMA(decay=0.98, warmup=warmup)):
        seen, task = Weights(), classifier(optimizer=partial(torch.optim.SGD, lr=0.01))
        fit(trainer(callbacks=[average, seen]), task, batches(400))
        weights.append(first(task))
        ends.append(seen.steps)
    assert average._average_model is not None
    assert int(average._average_model.n_averaged) == 40
    assert torch.equal(ends[0][-1], ends[1][-1])
    between = (weights[0] - weights[1]).norm()
    assert between < 0.25 * (weights[0] - ends[0][-1]).norm()


@pytest.mark.parametrize("steps", [7, 15])
def test_a_run_of_few_steps_validates_and_saves_what_there_is(tmp_path: Path, steps: int) -> None:
    """Below ten steps the weights themselves, with fifteen those after the tenth."""
    best = pl.callbacks.ModelCheckpoint(tmp_path, "best", "val/loss")
    seen, task = Weights(), classifier()
    fit(trainer(callbacks=[EMA(), seen, best], enable_checkpointing=True), task, batches(steps))
    kept = seen.steps[-1 if steps < 10 else 9]
    saved = load_checkpoint_file(tmp_path / "best.ckpt")
    assert torch.equal(seen.validated[-1], kept)
    assert torch.equal(saved["state_dict"]["model.weight"], kept)
    assert torch.equal(saved.get("current_model_state", saved["state_dict"])["model.weight"], seen.steps[-1])
    assert torch.equal(first(task), kept)


def test_before_its_first_update_the_weights_themselves_are_validated_and_saved(tmp_path: Path) -> None:
    seen, task = Weights(), classifier()
    run = trainer(callbacks=[EMA(start=1000), seen])
    fit(run, task, batches(3))
    assert torch.equal(seen.validated[-1], seen.steps[-1])
    assert torch.equal(first(task), seen.steps[-1])
    run.save_checkpoint(tmp_path / "x.ckpt")
    assert "current_model_state" not in torch.load(tmp_path / "x.ckpt", weights_only=True)


@pytest.mark.parametrize("alone", [True, False])
def test_the_checkpoint_holds_what_was_validated_and_what_goes_on(tmp_path: Path, alone: bool) -> None:
    best = pl.callbacks.ModelCheckpoint(tmp_path, "best", "val/loss", save_weights_only=alone)
    seen, task = Weights(), classifier()
    fit(trainer(callbacks=[EMA(decay=0.5, every=1), seen, best], enable_checkpointing=True), task, batches(8))
    saved = load_checkpoint_file(tmp_path / "best.ckpt")
    assert torch.equal(saved["state_dict"]["model.weight"], seen.validated[-1])
    assert alone or torch.equal(saved["current_model_state"]["model.weight"], seen.steps[-1])
    assert not torch.equal(seen.validated[-1], seen.steps[-1])


def test_lightnings_own_saves_other_weights_alone_than_it_validates(tmp_path: Path) -> None:
    """The day it does not, `_save_it_alone` can go."""
    best = pl.callbacks.ModelCheckpoint(tmp_path, "best", "val/loss", save_weights_only=True)
    seen, own = Weights(), pl.callbacks.EMAWeightAveraging(decay=0.5)
    fit(trainer(callbacks=[own, seen, best], enable_checkpointing=True), classifier(), batches(8))
    assert torch.equal(load_checkpoint_file(tmp_path / "best.ckpt")["state_dict"]["model.weight"], seen.steps[-1])


def test_whole_numbers_are_the_latest_and_running_means_are_averaged() -> None:
    norm = nn.BatchNorm1d(3)
    task, means = classifier(model=nn.Sequential(norm, nn.Linear(3, 2))), []
    watch = At(lambda run, module, index: means.append(norm.running_mean.clone()))  # type: ignore[union-attr]
    fit(trainer(callbacks=[EMA(warmup="polyak", every=1), watch]), task, batches(5))
    assert norm.num_batches_tracked == 5
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))


def test_lazy_layers_have_shapes_by_then() -> None:
    task = classifier(model=MLP(None, 2, hidden=[4]))
    seen = Weights()
    trainer(callbacks=[EMA(warmup="polyak", every=1), seen]).fit(task, datamodule=Data())
    torch.testing.assert_close(first(task), torch.stack(seen.steps).mean(0))


def test_weights_of_16_bits_are_refused() -> None:
    task = classifier().to(torch.bfloat16)
    with pytest.raises(MLScaleError, match="16 bits") as reported:
        fit(trainer(callbacks=[EMA()], precision="bf16-true"), task, batches(2))
    assert reported.value.fix.startswith("precision=bf16")


@pytest.mark.parametrize("wrong", [{"decay": 2.0}, {"warmup": "slow"}, {"every": 0}, {"start": -1}])
def test_settings_that_are_none(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(MLScaleError, match=rf"callbacks\.ema\.{name} is ") as reported:
        EMA(**wrong)
    assert f"callbacks.ema.{name}=" in reported.value.fix


@pytest.mark.parametrize("every", [1, 10])
def test_it_is_better_where_the_weights_are_noisy(every: int) -> None:
    """Averaging takes the noise out of a constant rate that is too large: what it is for."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.tensor([1.0, -2.0, 0.5])

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(8, 3, generator=generator)
        return x, x @ truth + torch.randn(8, generator=generator)

    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 1)
            nn.init.zeros_(self.line.weight)
            nn.init.zeros_(self.line.bias)

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.mse_loss(self.line(batch[0])[:, 0], batch[1])

        def validation_step(self, batch: Any) -> None: ...

        configure_optimizers = lambda self: partial(torch.optim.SGD, lr=0.15)(self.parameters())  # noqa: E731

    errors = {}
    data = [batch() for _ in range(400)]
    for name, callbacks in (("plain", []), ("average", [EMA(decay=0.98, every=every)])):
        task = Line()
        fit(trainer(callbacks=callbacks), task, data)
        errors[name] = float((task.line.weight.detach()[0] - truth).norm())
    assert errors["average"] < 0.5 * errors["plain"]
