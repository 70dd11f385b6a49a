"""The comparison counts what it says it counts, and each bound is a bound."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.compress.int8_verdict import Int8Bounds, Int8Metrics, compare_int8
from mlscale.data import Digits
from mlscale.export.onnx_engine import OnnxEngine
from mlscale.export.validation_samples import iterate_validation_batches
from mlscale.stats.intervals import Interval
from mlscale.stats.paired import compute_score_interval
from mlscale.stats.timing import CallTime, TimesCompared
from mlscale.tasks import ResNet
from tests.unit.compress.conftest import classifier, export_classifier

BOUNDS = Int8Bounds(max_accuracy_drop=0.01, min_agreement=0.95, min_speedup=1.05)


def timed(first: float, second: float, low: float, high: float) -> TimesCompared:
    return TimesCompared(
        CallTime(first, 2 * first), CallTime(second, 2 * second), Interval(first / second, low, high), 16
    )


GOOD = Int8Metrics(
    samples=10_000, fp32_right=9000, int8_right=8950, fp32_only=150, int8_only=100, agree=9700,
    single=timed(2, 1, 1.9, 2.1), batch=timed(60, 20, 2.9, 3.2), fp32_bytes=400, int8_bytes=100,
)  # fmt: skip


def test_figures() -> None:
    assert (GOOD.fp32_accuracy, GOOD.int8_accuracy, GOOD.accuracy_drop) == (0.9, 0.895, 0.005)
    assert (GOOD.speedup.value, GOOD.batch_speedup.value, GOOD.size_ratio, GOOD.agreement) == (2.0, 3.0, 4.0, 0.97)
    assert GOOD.accuracy_drop < GOOD.accuracy_drop_at_most < 0.01
    assert GOOD.accuracy_drop_at_most == -compute_score_interval(100, 150, 10_000, 0.95)[0]
    assert GOOD.discordance == "of 10,000 samples 150 are right in fp32 alone and 100 in int8 alone"
    assert GOOD.list_unmet_bounds(BOUNDS) == []
    document = GOOD.build_document()
    assert (document["fp32_latency_ms"], document["fp32_cpu_ms"]) == (4, 2)
    assert document["speedup"] == {"value": 2, "low": 1.9, "high": 2.1}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"single": timed(2, 4, 0.45, 0.55)},
            "slower, 0.50× as fast as fp32 (0.45 to 0.55), where 1.05× is wanted",
        ),
        (
            {"single": timed(2, 1.95, 1.02, 1.04)},
            "hardly faster, 1.03× as fast as fp32 (1.02 to 1.04), where 1.05× is wanted",
        ),
        (
            {"single": timed(2, 1.98, 0.99, 1.03)},
            "hardly faster, 1.01× as fast as fp32 (0.99 to 1.03), where 1.05× is wanted",
        ),
        (
            {"single": timed(2, 1.6, 1.049, 1.5)},
            "undecided whether it is fast enough: 1.25× as fast as fp32 (1.05 to 1.50), where 1.05× is wanted",
        ),
        (
            {"single": timed(2, float("nan"), float("nan"), float("nan"))},
            "undecided whether it is fast enough: nan× as fast as fp32 (nan to nan), where 1.05× is wanted",
        ),
        ({"fp32_only": 201}, "accuracy falls by 0.0101, more than 0.01"),
        (
            {"fp32_only": 180},
            "undecided whether it is accurate enough: accuracy falls by 0.0080 on 10,000 samples, and may fall by "
            "0.0108 (95 % confidence), more than 0.01",
        ),
        ({"agree": 9499}, "94.99% of the classes agree, fewer than 95.00%"),
    ],
)
def test_each_bound_is_told_with_its_number(change: dict[str, Any], problem: str) -> None:
    assert replace(GOOD, **change).list_unmet_bounds(BOUNDS) == [problem]


def test_what_is_decided_is_decided_at_the_bound_itself() -> None:
    assert replace(GOOD, single=timed(2.1, 2, 1.05, 1.05)).list_unmet_bounds(BOUNDS) == []
    assert replace(GOOD, agree=9500).list_unmet_bounds(BOUNDS) == []
    exact = replace(BOUNDS, max_accuracy_drop=GOOD.accuracy_drop_at_most)
    assert GOOD.list_unmet_bounds(exact) == []
    assert GOOD.list_unmet_bounds(replace(exact, max_accuracy_drop=GOOD.accuracy_drop_at_most - 1e-9)) != []


def test_few_samples_do_not_show_that_accuracy_holds() -> None:
    few = replace(GOOD, samples=100, fp32_right=90, int8_right=90, fp32_only=0, int8_only=0, agree=100)
    (problem,) = few.list_unmet_bounds(BOUNDS)
    assert "accuracy falls by 0.0000 on 100 samples, and may fall by 0.0263" in problem
    assert replace(few, samples=300, fp32_right=290, int8_right=290, agree=300).list_unmet_bounds(BOUNDS) == []


def test_a_better_int8_has_a_negative_drop() -> None:
    assert replace(GOOD, fp32_only=20, int8_only=120).accuracy_drop == -0.01


def test_both_models_get_the_same_samples(digits: Digits, convolutions: bytes) -> None:
    torch.manual_seed(1)
    other = export_classifier(classifier(ResNet(1, 10, widths=(8, 16))), digits)
    figures = compare_int8(convolutions, other, iterate_validation_batches(digits), min_speedup=0)
    decoded = digits.get_decoded_split("val")
    raw, y = np.stack([decoded.get_sample(row) for row in range(len(decoded))]), decoded.labels
    ours, theirs = (OnnxEngine(model).run(raw).argmax(1) for model in (convolutions, other))
    assert figures.samples == len(y) == 360
    assert figures.fp32_only == ((ours == y) & (theirs != y)).sum()
    assert figures.int8_only == ((ours != y) & (theirs == y)).sum()
    assert (figures.fp32_right, figures.int8_right) == ((ours == y).sum(), (theirs == y).sum())
    assert figures.agree == (ours == theirs).sum() < 360
    assert figures.accuracy_drop == pytest.approx(figures.fp32_accuracy - figures.int8_accuracy)
    assert (figures.fp32_bytes, figures.int8_bytes) == (len(convolutions), len(other))
    for times in (figures.single, figures.batch):
        assert 0 < times.ratio.low <= times.ratio.value <= times.ratio.high
        assert min(times.first.cpu_ms, times.first.wall_ms, times.second.cpu_ms, times.second.wall_ms) > 0


def test_fp32_is_timed_against_int8_until_the_bound_is_decided(
    digits: Digits, convolutions: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    other = export_classifier(classifier(ResNet(1, 10, widths=(8, 16))), digits)
    answers: list[Any] = []
    bounds: list[float | None] = []

    def compare_times(first: Any, second: Any, *, bound: float | None = None, budget_s: float = 10) -> TimesCompared:
        answers.extend((first(), second()))
        bounds.append(bound)
        return timed(2, 1, 1.9, 2.1)

    monkeypatch.setattr("mlscale.compress.int8_verdict.compare_times", compare_times)
    compare_int8(convolutions, other, iterate_validation_batches(digits), min_speedup=1.07)
    assert bounds == [1.07, None]
    raw = next(iter(iterate_validation_batches(digits))).raw
    fp32, int8 = (OnnxEngine(model).run(raw[:1]) for model in (convolutions, other))
    assert abs(fp32 - int8).max() > 0.01
    for answer, expected, samples in zip(answers, (fp32, int8, fp32, int8), (1, 1, 32, 32), strict=True):
        assert len(answer) == samples
        np.testing.assert_allclose(answer[:1], expected, atol=1e-4)
