"""A loss that ends far above its start."""

from __future__ import annotations

from functools import partial
from math import log
from typing import Any

import pytest
import torch

from mlscale.train.after_fit import AfterFitResult
from mlscale.train.callbacks import TrainMetrics
from mlscale.train.callbacks.loss_end import LossEnd, compute_constant_loss
from tests.unit.fitting import Loader, batches, classifier, trainer


def fit(lr: float, watch: LossEnd, *, sanity: bool = True, **arguments: Any) -> AfterFitResult | None:
    """Train on random labels, of which there is little to learn."""
    fitting = trainer(callbacks=[watch, TrainMetrics()], num_sanity_val_steps=-1 if sanity else 0, **arguments)
    task, data = classifier(optimizer=partial(torch.optim.SGD, lr=lr)), Loader(batches(12))
    fitting.fit(task, data, data)
    return watch.after_fit(fitting, task)


@pytest.mark.parametrize("constant", [log(2), None])
@pytest.mark.parametrize(("sanity", "name"), [(True, "val/loss"), (False, "train/loss")])
def test_a_rate_that_is_far_too_high_is_reported(
    constant: float | None, sanity: bool, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = fit(1000.0, LossEnd(constant, lr=1000.0 if sanity else None), sanity=sanity)
    assert reported is not None
    assert reported.remark.startswith(f"{name} ended at ")
    assert reported.ok
    assert ("a constant prediction has 0.6931" in reported.remark) is (constant is not None)
    fix = "optimizer.lr=100, a tenth" if sanity else "a tenth of the learning rate"
    assert f"warning   {reported.remark}; try {fix}" in capsys.readouterr().err


@pytest.mark.parametrize("constant", [log(2), None])
@pytest.mark.parametrize("sanity", [True, False])
def test_one_that_learns_is_not(constant: float | None, sanity: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(0.1, LossEnd(constant), sanity=sanity, max_epochs=3) is None
    assert "warning" not in capsys.readouterr().err


def test_a_few_steps_have_no_trend() -> None:
    assert fit(1000.0, LossEnd(log(2)), max_steps=3) is None


def test_weights_that_were_there_have_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    fit(1000.0, LossEnd(log(2), pretrained=True))
    assert "+recipe=finetune" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("start", "constant", "end", "far"),
    [
        (2.4, 2.3, 537.0, True),
        (2.4, 2.3, 4.5, False),  # overconfident, not diverged
        (0.05, 2.3, 0.5, False),  # from weights that knew the task, still far better than a constant
        (30000.0, None, 200000.0, True),
        (30000.0, None, 60000.0, False),
        (-5.0, None, -4.0, False),  # a log-likelihood of a density
        (-5.0, None, 100.0, True),
        (2.4, 2.3, float("nan"), False),
    ],
)
def test_what_far_is(start: float, constant: float | None, end: float, far: bool) -> None:
    watch = LossEnd(constant)
    watch.load_state_dict({"name": "val/loss", "start": start})
    assert watch._is_far(end) is far


def test_the_constant_is_the_entropy_of_the_classes() -> None:
    assert compute_constant_loss([5, 5], None) == pytest.approx(log(2))
    assert compute_constant_loss([9, 1, 0], 3) == pytest.approx(0.3251, abs=1e-4)
    assert compute_constant_loss(None, 10) == pytest.approx(log(10))
    assert compute_constant_loss(None, None) is None
