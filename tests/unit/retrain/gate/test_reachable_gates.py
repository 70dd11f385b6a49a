"""A gate that no challenger can pass is found before one is trained."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.commands.retrain.cycle_steps import (
    check_original_gate,
    compute_fewest_original_samples,
    compute_fewest_window_samples,
)
from mlscale.errors import MLScaleError
from mlscale.export.servable import Servable
from mlscale.retrain.gate.gate_limits import GateLimits
from mlscale.stats.paired import compute_mcnemar_mid_p, compute_score_interval
from mlscale.task_types.registry import get_task_type
from tests.unit.retrain.gate.fake_servables import make_servable

LIMITS = GateLimits(alpha=0.05, max_drop=0.03, max_latency_ratio=1.3)


def make_model() -> Servable:
    """A servable that says '1' where the only value is above a half."""

    def compute_logits(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"logits": np.concatenate([np.zeros_like(x), x - np.float32(0.5)], 1)}

    return make_servable(compute_logits, labels=("0", "1"))


def draw_samples(count: int, errors: int = 0) -> list[tuple[NDArray[Any], NDArray[np.int64]]]:
    values = np.random.default_rng(0).random((count, 1), np.float32)
    truth = (values[:, 0] > 0.5).astype(np.int64)
    truth[:errors] = 1 - truth[:errors]
    return [(values, truth)]


@pytest.mark.parametrize(("max_drop", "alpha"), [(0.03, 0.05), (0.05, 0.05), (0.1, 0.01)])
def test_the_fewest_original_samples_are_those_of_the_interval(max_drop: float, alpha: float) -> None:
    fewest = compute_fewest_original_samples(max_drop, alpha)
    assert compute_score_interval(0, 0, fewest, 1 - alpha)[0] >= -max_drop
    assert compute_score_interval(0, 0, fewest - 1, 1 - alpha)[0] < -max_drop
    assert compute_fewest_original_samples(0.03, 0.05) == 88


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.25])
def test_the_fewest_of_the_window_are_those_of_its_test(alpha: float) -> None:
    fewest = compute_fewest_window_samples(get_task_type("classification"), alpha)
    assert compute_mcnemar_mid_p(fewest, 0)[1] <= alpha
    assert fewest == 1 or compute_mcnemar_mid_p(fewest - 1, 0)[1] > alpha
    assert compute_fewest_window_samples(get_task_type("segmentation"), 0.05) == 5
    assert compute_fewest_window_samples(get_task_type("regression"), 0.05) == 150


def test_a_perfect_champion_on_few_samples_can_not_be_replaced() -> None:
    with pytest.raises(MLScaleError, match="59 original samples are too few") as caught:
        check_original_gate(make_model(), draw_samples(59), LIMITS)
    assert "at least 88 are needed" in caught.value.what
    assert "worse by 4.38%" in caught.value.why
    assert caught.value.fix.startswith("gate.max_drop=0.05; ")
    # What the message proposes is enough.
    check_original_gate(make_model(), draw_samples(59), replace(LIMITS, max_drop=0.05))


def test_what_can_pass_is_not_refused() -> None:
    check_original_gate(make_model(), draw_samples(88), LIMITS)
    # A challenger may be right where this champion is wrong.
    check_original_gate(make_model(), draw_samples(59, errors=12), LIMITS)
    check_original_gate(make_model(), draw_samples(59), replace(LIMITS, old=False))
