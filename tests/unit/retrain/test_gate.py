"""Promoted is what is surely better on the window and surely not much worse on what came before."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import TensorSpec
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.export.onnx_engine import OnnxEngine
from mlscale.export.servable import Servable
from mlscale.retrain.gate import GateLimits, decide_promotion
from mlscale.stats.intervals import Interval
from mlscale.stats.paired import compute_mcnemar_mid_p, compute_score_interval
from mlscale.stats.timing import CallTime, TimesCompared
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames

BOUNDS = GateLimits(alpha=0.05, max_drop=0.03, max_latency_ratio=50)  # two models of one operator: the clock decides
LABELS = ("0", "1")


@pytest.fixture(scope="module")
def model() -> Callable[[float], Servable]:
    """A servable that says '1' where the only value is above a threshold."""
    from onnx import TensorProto, helper

    def make(threshold: float) -> Servable:
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])
        gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
        weights = helper.make_tensor("w", TensorProto.FLOAT, [1, 2], [0.0, 1.0])
        bias = helper.make_tensor("b", TensorProto.FLOAT, [2], [0.0, -threshold])
        node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
        graph = helper.make_graph([node], "g", [given], [gives], [weights, bias])
        opset = [helper.make_opsetid("", 17)]
        content = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
        engine = OnnxEngine(content)
        encoder = TensorEncoder((TensorSpec("x", "float32", (1,)),))
        task_type, document = get_task_type("classification"), {"format": "mlscale/servable/2"}
        return Servable(
            Path(), document, task_type, encoder, engine.inputs, engine.outputs, AnswerNames(LABELS), engine
        )

    return make


def samples(count: int, threshold: float, seed: int = 0) -> list[tuple[NDArray[Any], list[str]]]:
    """Values from 0 to 1, '1' above a threshold, in two batches."""
    values = np.random.default_rng(seed).random((count, 1), np.float32)
    names = [LABELS[int(value > threshold)] for value in values[:, 0]]
    half = count // 2
    return [(values[:half], names[:half]), (values[half:], names[half:])]


def test_better_and_not_worse(model: Callable[[float], Servable]) -> None:
    # What is right has moved from 0.5 to 0.7, and on the old data the two hardly differ.
    judged = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(300, 0.6, seed=1), BOUNDS)
    assert judged.metrics["challenger_window_accuracy"] == 1
    assert judged.metrics["champion_window_accuracy"] == pytest.approx(0.8, abs=0.1)
    assert judged.metrics["original_samples"] == 300
    assert [reason for reason in judged.objections if "held-out" in reason] == []


def test_all_gates_hold(model: Callable[[float], Servable]) -> None:
    judged = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(300, 0.7, seed=1), BOUNDS)
    assert judged.objections == ()
    assert judged.metrics["original_difference_low"] > 0


def test_forgetting_is_held_against_it(model: Callable[[float], Servable]) -> None:
    judged = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(300, 0.5, seed=1), BOUNDS)
    (reason,) = judged.objections
    assert reason.startswith("on the 300 original samples it may be worse by ")
    assert "gate.max_drop 3.00%" in reason


def test_a_little_better_is_not_surely_better(model: Callable[[float], Servable]) -> None:
    one_more = [(np.array([[0.6], [0.9], [0.1]], np.float32), ["0", "1", "0"])]
    judged = decide_promotion(model(0.5), model(0.7), one_more, samples(300, 0.7), BOUNDS)
    assert judged.objections == (
        "it is not surely better on the 3 held-out samples: 1 more right, 0 more wrong (p 0.25, gate.alpha 0.05)",
    )


def test_the_same_model_is_not_better(model: Callable[[float], Servable]) -> None:
    (reason,) = decide_promotion(model(0.5), model(0.5), samples(100, 0.7), samples(100, 0.5), BOUNDS).objections
    assert "(p 1, gate.alpha 0.05)" in reason


def test_a_slow_one_is_refused(model: Callable[[float], Servable]) -> None:
    bounds = replace(BOUNDS, max_latency_ratio=1e-3)
    judged = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(100, 0.7), bounds)
    (reason,) = judged.objections
    assert reason.startswith("one sample takes ")
    assert "× as long (" in reason
    assert "gate.max_latency_ratio 0.001)" in reason
    figures = judged.metrics
    assert figures["latency_ratio_low"] <= figures["latency_ratio"] <= figures["latency_ratio_high"]
    assert min(figures[f"{who}_{clock}_ms"] for who in ("champion", "challenger") for clock in ("cpu", "latency")) > 0


@pytest.fixture
def equally_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about speed."""
    times = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1, 1, 1), 16)
    monkeypatch.setattr("mlscale.retrain.gate.compare_times", lambda *_, **__: times)


@pytest.mark.parametrize(("low", "high", "reasons"), [(1.2, 1.3, 0), (1.2, 1.301, 1), (1.301, 1.4, 1)])
def test_undecided_speed_keeps_the_champion(
    model: Callable[[float], Servable], monkeypatch: pytest.MonkeyPatch, low: float, high: float, reasons: int
) -> None:
    times = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1.25, low, high), 16)
    monkeypatch.setattr("mlscale.retrain.gate.compare_times", lambda *_, **__: times)
    bounds = replace(BOUNDS, max_latency_ratio=1.3)
    against = decide_promotion(model(0.5), model(0.7), samples(100, 0.7), samples(300, 0.7), bounds).objections
    assert len(against) == reasons
    assert any("undecided" in each for each in against) == (low <= 1.3 < high)
    for each in against:
        assert f"one sample takes 1.25× as long ({low:.2f} to {high:.2f}, gate.max_latency_ratio 1.3)" in each


def test_the_challenger_is_timed_against_the_champion_until_the_bound_is_decided(
    model: Callable[[float], Servable], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def compare_times(first: Callable[[], Any], second: Callable[[], Any], *, bound: float) -> TimesCompared:
        seen.extend((-float(first()[0, 1]), -float(second()[0, 1]), bound))
        assert first().shape == second().shape == (1, 2)  # the time of one sample
        return TimesCompared(CallTime(3, 4), CallTime(1, 2), Interval(1.2, 1.1, 1.25), 16)

    monkeypatch.setattr("mlscale.retrain.gate.compare_times", compare_times)
    bounds = replace(BOUNDS, max_latency_ratio=1.3)
    figures = decide_promotion(model(0.5), model(0.7), samples(20, 0.7), samples(20, 0.7), bounds).metrics
    assert seen == pytest.approx([0.7, 0.5, 1.3])
    assert [figures[f"{who}_{clock}_ms"] for who in ("challenger", "champion") for clock in ("cpu", "latency")] == [
        3, 4, 1, 2,
    ]  # fmt: skip
    assert [figures[f"latency_ratio{end}"] for end in ("", "_low", "_high")] == [1.2, 1.1, 1.25]


def differing(gained: int, lost: int, same: int) -> list[tuple[NDArray[Any], list[str]]]:
    """Samples of which the model at 0.7 has so many right and wrong where the one at 0.5 is the other way round."""
    values = np.array([0.6] * (gained + lost) + [0.9] * same, np.float32)[:, None]
    return [(values, ["0"] * gained + ["1"] * (lost + same))]


@pytest.mark.parametrize(
    ("gained", "lost", "alpha", "better"),
    # One-sided mid-p: 5 to 0 is 1/64, 4 to 0 is 1/32, 7 to 1 is 0.0195; two-sided would be twice that.
    [
        (4, 0, 0.05, True), (4, 0, 0.03, False), (5, 0, 0.03, True), (5, 0, 1 / 64, True), (5, 0, 0.015, False),
        (7, 1, 0.02, True), (7, 1, 0.019, False), (0, 7, 0.4, False),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("equally_fast")
def test_alpha_is_of_one_side(
    model: Callable[[float], Servable], gained: int, lost: int, alpha: float, better: bool
) -> None:
    bounds = replace(BOUNDS, alpha=alpha, max_drop=1)
    judged = decide_promotion(model(0.5), model(0.7), differing(gained, lost, 20), samples(50, 0.7), bounds)
    assert judged.metrics["window_p_better"] == compute_mcnemar_mid_p(gained, lost)[1]
    assert (judged.objections == ()) == better


@pytest.mark.usefixtures("equally_fast")
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_lower_end_of_the_difference_decides(model: Callable[[float], Servable], alpha: float) -> None:
    original = differing(3, 5, 292)
    low = compute_score_interval(3, 5, 300, 1 - alpha)[0]
    assert low < -2 / 300
    for max_drop, holds in ((-low + 1e-6, True), (-low, True), (-low - 1e-6, False), (2 / 300 + 1e-6, False)):
        bounds = replace(BOUNDS, alpha=alpha, max_drop=max_drop)
        judged = decide_promotion(model(0.5), model(0.7), differing(30, 0, 0), original, bounds)
        assert judged.metrics["original_difference"] == pytest.approx(-2 / 300)
        assert judged.metrics["original_difference_low"] == pytest.approx(low)
        assert judged.metrics["champion_original_accuracy"] == pytest.approx(297 / 300)
        assert judged.metrics["challenger_original_accuracy"] == pytest.approx(295 / 300)
        assert (judged.objections == ()) == holds
        if not holds:
            (reason,) = judged.objections
            assert f"may be worse by {-low:.2%} (measured -0.67%, gate.max_drop {max_drop:.2%})" in reason
