"""The comparison counts what it says it counts, and each bound is a bound."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlscale.compress.judge import Bounds, Figures, compare
from mlscale.data import Digits
from mlscale.export.engine import Engine
from mlscale.export.onnx import export, served
from mlscale.export.samples import input_of, validation
from mlscale.tasks import ResNet
from tests.unit.compress.conftest import classifier

BOUNDS = Bounds(max_accuracy_drop=0.01, min_agreement=0.95, min_speedup=1.05)
GOOD = Figures(
    samples=1000, fp32_right=900, int8_right=895, fp32_only=15, int8_only=10, agree=970,
    fp32_latency_ms=2.0, int8_latency_ms=1.0, fp32_batch_ms=60.0, int8_batch_ms=20.0, fp32_bytes=400, int8_bytes=100,
)  # fmt: skip


def test_figures() -> None:
    assert (GOOD.fp32_accuracy, GOOD.int8_accuracy, GOOD.accuracy_drop) == (0.9, 0.895, 0.005)
    assert (GOOD.speedup, GOOD.batch_speedup, GOOD.smaller, GOOD.agreement) == (2.0, 3.0, 4.0, 0.97)
    assert GOOD.accuracy_drop < GOOD.accuracy_drop_at_most < 0.02
    assert GOOD.discordance == "of 1,000 samples 15 are right in fp32 alone and 10 in int8 alone"
    assert GOOD.problems(BOUNDS) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"int8_latency_ms": 4.0}, "slower, 0.50× as fast as fp32, where 1.05× is wanted"),
        ({"int8_latency_ms": 1.95}, "hardly faster, 1.03× as fast as fp32, where 1.05× is wanted"),
        ({"int8_latency_ms": float("nan")}, "hardly faster, nan× as fast as fp32, where 1.05× is wanted"),
        ({"fp32_only": 21}, "accuracy falls by 0.0110, more than 0.01"),
        ({"agree": 949}, "94.90% of the classes agree, fewer than 95.00%"),
    ],
)
def test_each_bound_is_told_with_its_number(change: dict[str, float], problem: str) -> None:
    assert replace(GOOD, **change).problems(BOUNDS) == [problem]  # type: ignore[arg-type]


def test_a_better_int8_has_a_negative_drop() -> None:
    assert replace(GOOD, fp32_only=2, int8_only=12).accuracy_drop == -0.01


def test_both_models_get_the_same_samples(digits: Digits, convolutions: bytes) -> None:
    torch.manual_seed(1)
    other = export(served(classifier(ResNet(1, 10, widths=(8, 16))), input_of(digits)), input_of(digits))
    figures = compare(convolutions, other, validation(digits))
    decoded = digits.decoded("val")
    raw, y = np.stack([decoded.sample(row) for row in range(len(decoded))]), decoded.labels
    ours, theirs = (Engine(model).run(raw).argmax(1) for model in (convolutions, other))
    assert figures.samples == len(y) == 360
    assert figures.fp32_only == ((ours == y) & (theirs != y)).sum()
    assert figures.int8_only == ((ours != y) & (theirs == y)).sum()
    assert (figures.fp32_right, figures.int8_right) == ((ours == y).sum(), (theirs == y).sum())
    assert figures.agree == (ours == theirs).sum() < 360
    assert figures.accuracy_drop == pytest.approx(figures.fp32_accuracy - figures.int8_accuracy)
    assert (figures.fp32_bytes, figures.int8_bytes) == (len(convolutions), len(other))
    assert min(figures.fp32_latency_ms, figures.int8_latency_ms, figures.fp32_batch_ms, figures.int8_batch_ms) > 0
