"""Which precision is chosen: what is proven faster and agrees, and nothing else; on real steps."""

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlscale.profile.precision_trial import (
    MAX_SLOWDOWN,
    CandidateMeasurement,
    PrecisionCandidate,
    PrecisionComparison,
    compare_candidates,
    list_candidates,
)
from mlscale.stats.intervals import Interval
from mlscale.tasks import Classification
from tests.unit.fitting import batches, classifier

BF16 = PrecisionCandidate("bf16-mixed")


class Slow(nn.Module):
    """Takes longer where it is not computed in bfloat16; its logits can be off there."""

    def __init__(self, off: float = 1.0, fails: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.off, self.fails = nn.Linear(3, 2), off, fails

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        if out.dtype == torch.bfloat16:
            if self.fails:
                raise ValueError("no such kernel")
            return out * self.off
        time.sleep(0.02)  # long beside what a busy machine adds to a step
        return out


def found(far: float = MAX_SLOWDOWN, **arguments: Any) -> PrecisionComparison:
    def build() -> Classification:
        return classifier(model=Slow(**arguments))

    return compare_candidates(build, batches(4), [PrecisionCandidate(), BF16], "cpu", 0.5, far)


def test_what_is_faster_and_agrees_is_chosen() -> None:
    comparison = found()
    base, other = comparison.measured
    assert other.factor is not None
    assert other.factor.low > 1.2
    assert other.has_agreeing_loss(0.05)
    assert comparison.select_best(0.05).candidate == BF16
    assert base.factor is not None
    assert base.factor.value == 1


def test_what_gets_slow_later_does_not_hold_the_run_up() -> None:
    """Threads that another job wakes up late, say: seen at 50 times the first steps' time."""

    class SlowLater(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            SlowLater.calls += torch.is_autocast_enabled("cpu")
            time.sleep(0.1 if torch.is_autocast_enabled("cpu") and SlowLater.calls > 8 else 0.0)
            return super().forward(x)

    comparison = compare_candidates(
        lambda: classifier(model=SlowLater(3, 2)), batches(4), [PrecisionCandidate(), BF16], "cpu", 0.5
    )
    assert comparison.select_best(0.05).candidate == PrecisionCandidate()
    assert SlowLater.calls < 8 + 40  # 50 steps a round would be hundreds


def test_what_is_faster_and_wrong_is_not() -> None:
    comparison = found(off=30.0)
    assert not comparison.measured[1].has_agreeing_loss(0.05)
    assert comparison.select_best(0.05) is comparison.measured[0]
    assert comparison.select_best(math.inf).candidate == BF16


def test_what_fails_is_left_out_and_reported() -> None:
    comparison = found(fails=True)
    assert comparison.select_best(0.05).candidate == PrecisionCandidate()
    assert comparison.measured[1].why == "no such kernel"


@pytest.mark.parametrize(("low", "chosen"), [(0.99, 0), (1.01, 1)])
def test_a_gain_must_be_proven(low: float, chosen: int) -> None:
    sides = [
        CandidateMeasurement(PrecisionCandidate(), 1.0, Interval(1, 1, 1), 2.0, 0.0),
        CandidateMeasurement(BF16, 0.8, Interval(1.2, low, 1.5), 2.0, 0.01),
    ]
    assert PrecisionComparison(tuple(sides), 10, 1.0).select_best(0.05) is sides[chosen]
    nan = CandidateMeasurement(BF16, 0.5, Interval(2, 1.9, 2.1), math.nan, math.nan)
    assert PrecisionComparison((sides[0], nan), 10, 1.0).select_best(0.05) is sides[0]


def test_what_a_machine_can_do() -> None:
    cpu = [each.name for each in list_candidates("cpu", bf16=True, images=True)]
    assert cpu == ["fp32", "fp32 channels_last", "bf16", "bf16 channels_last"]
    assert [each.name for each in list_candidates("cuda", bf16=False, images=False)] == ["fp32", "fp16"]
    assert [each.name for each in list_candidates("mps", bf16=False, images=False)] == ["fp32"]


def test_what_is_far_slower_is_not_measured_further() -> None:
    comparison = found(far=0.0)
    assert comparison.measured[1].factor is None
    assert "as long" in comparison.measured[1].why
