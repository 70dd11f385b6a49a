"""Schedules: a run of any length has one."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from mlscale.errors import MLScaleError
from mlscale.tasks import OneCycle, Warmup
from mlscale.tasks.optimizers import build_optimizers


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 8, 100])
def test_one_cycle_of_any_length(steps: int) -> None:
    rates = trained(OneCycle, steps)
    assert max(rates) == pytest.approx(0.1, rel=0.3)
    assert rates[-1] == min(rates)


def test_one_cycle_is_torch_s_where_that_works() -> None:
    assert trained(OneCycle, 100) == trained(OneCycleLR, 100)
    with pytest.raises(ZeroDivisionError):  # the day torch mends this, ours can go
        trained(OneCycleLR, 4)


def test_how_long_one_cycle_warms_up() -> None:
    rates = trained(OneCycle, 10, 0)  # as it is typed, a whole number
    assert rates == sorted(rates, reverse=True)
    for none in (1, 1.0, -0.1):
        with pytest.raises(MLScaleError, match=r"scheduler\.pct_start is") as caught:
            trained(OneCycle, 10, none)
        assert caught.value.unbuilt


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.Adafactor, torch.optim.LBFGS])
def test_one_cycle_of_an_optimizer_without_a_momentum(kind: Any) -> None:
    optimizer = kind([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert OneCycle(optimizer, max_lr=0.1, total_steps=10).get_last_lr() == [pytest.approx(0.004)]


def test_a_schedule_that_looks_at_a_metric_follows_the_validation_loss() -> None:
    module, sgd = torch.nn.Linear(1, 1), partial(torch.optim.SGD, lr=0.1)
    waiting = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=2)
    plateau = build_optimizers(module, sgd, waiting)["lr_scheduler"]
    assert (plateau["interval"], plateau["monitor"]) == ("epoch", "val/loss")
    cosine = build_optimizers(module, sgd, partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=9))["lr_scheduler"]
    assert (cosine["interval"], "monitor" in cosine) == ("step", False)


@pytest.mark.parametrize("value", [0, -3.0, float("nan")])
@pytest.mark.parametrize("name", ["div_factor", "final_div_factor"])
def test_the_rate_is_divided_by_numbers_above_0(name: str, value: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    settings: dict[str, Any] = {name: value}
    with pytest.raises(MLScaleError, match=rf"scheduler\.{name} is"):
        OneCycle(optimizer, max_lr=0.1, total_steps=10, **settings)


def trained(kind: type[OneCycleLR], steps: int, warmup: float = 0.25) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = kind(optimizer, max_lr=0.1, total_steps=steps, pct_start=warmup)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return rates


def rates(**settings: Any) -> list[float]:
    """Of 100 steps and the one past the end, for a group at 0.1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = Warmup(optimizer, 100, **settings)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(100):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("warmup", [0.05, 5])
def test_a_warm_up_by_part_and_by_steps(warmup: float) -> None:
    found = rates(warmup=warmup)
    assert found[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert found[5:] == sorted(found[5:], reverse=True)
    assert found[100] == pytest.approx(0.0)


def test_without_a_warm_up_it_is_torchs_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    expected = [0.1]
    for _ in range(100):
        optimizer.step()
        cosine.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates(warmup=0) == pytest.approx(expected)


def test_other_shapes_and_what_is_left() -> None:
    assert rates(warmup=0, shape="linear", final=0.5)[::50] == pytest.approx([0.1, 0.075, 0.05])
    assert rates(warmup=2, shape="constant")[:4] == pytest.approx([0.05, 0.1, 0.1, 0.1])
    assert rates(warmup=500)[::50] == pytest.approx([0.0002, 0.0102, 0.0202])  # a trial shorter than its warm-up


def test_groups_keep_their_rates() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    Warmup(optimizer, 100, warmup=10)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize("wrong", [{"warmup": -1}, {"final": 2}])
def test_settings_that_are_none(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(MLScaleError, match=f"scheduler.{name} is") as reported:
        rates(**wrong)
    assert reported.value.unbuilt
