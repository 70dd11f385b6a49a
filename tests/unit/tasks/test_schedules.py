"""Schedules: a run of any length has one."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from mlscale.tasks import OneCycle


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 8, 100])
def test_one_cycle_of_any_length(steps: int) -> None:
    rates = trained(OneCycle, steps)
    assert max(rates) == pytest.approx(0.1, rel=0.3)
    assert rates[-1] == min(rates)


def test_one_cycle_is_torch_s_where_that_works() -> None:
    assert trained(OneCycle, 100) == trained(OneCycleLR, 100)
    with pytest.raises(ZeroDivisionError):  # the day torch mends this, ours can go
        trained(OneCycleLR, 4)


def trained(kind: type[OneCycleLR], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = kind(optimizer, max_lr=0.1, total_steps=steps, pct_start=0.25)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return rates
