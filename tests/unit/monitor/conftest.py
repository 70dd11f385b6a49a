"""A baseline and windows that are drawn from known distributions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlscale.monitor.baseline import Baseline
from mlscale.monitor.event_columns import round_confidence
from mlscale.monitor.event_window import EventWindow
from mlscale.reference.column_sketch import (
    ColumnSketch,
    Group,
    ScoreReference,
    build_category_sketch,
    build_number_sketch,
)
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.registry import get_task_type

CLASSES = np.array([0.4, 0.3, 0.2, 0.05, 0.03, 0.02])
NAMES = AnswerNames(tuple("abcdef"))
Draw = Callable[..., EventWindow]


def baseline(samples: int = 1000, seed: int = 0, channels: int = 3, score: ScoreReference | None = None) -> Baseline:
    """What `window` draws from, as it was seen on `samples` samples."""
    drawn = window(samples, seed=seed, channels=channels).columns
    sketches: list[ColumnSketch] = []
    for name, values in drawn.items():
        group: Group = "inputs" if name.startswith("input.") else "outputs"
        if values.dtype == object:
            sketches.append(build_category_sketch(name, group, values.tolist(), is_ordered=False))
        else:
            sketches.append(build_number_sketch(name, group, values.astype(np.float64), is_ordered=False))
    task_type = get_task_type("classification")
    return Baseline("m", "m:v1", task_type, NAMES, tuple(sketches), score or score_of(0.99, samples), True)


def score_of(mean: float, samples: int = 1000) -> ScoreReference:
    """The accuracy of a reference."""
    return ScoreReference("accuracy", True, "", True, True, mean, samples, np.zeros(0))


def window(
    n: int,
    *,
    seed: int,
    channels: int = 3,
    shift: float = 0.0,
    right: float = 0.99,
    labelled: int = 0,
    rejected: int = 0,
    latency_ms: float = 2.0,
) -> EventWindow:
    """n events: brightness around 100 ± 20, correlated channels, confidence that is often exactly 1."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(n, 1))
    means = 100 + 20 * (0.8 * common + 0.6 * generator.normal(size=(n, channels)) + shift)
    stds = 50 + 5 * (0.5 * common + generator.normal(size=(n, channels)))
    confidence = np.minimum(1, generator.beta(8, 1, n) + 0.05)
    columns: dict[str, Any] = {f"input.mean_{channel}": means[:, channel] for channel in range(channels)}
    columns |= {f"input.std_{channel}": stds[:, channel] for channel in range(channels)}
    columns["output.confidence"] = round_confidence(confidence)
    columns["output.label"] = np.array(NAMES.labels, object)[generator.choice(6, n, p=CLASSES)]
    return EventWindow(
        columns=columns,
        latency_ms=generator.exponential(latency_ms, n).astype(np.float32),
        scores=(generator.uniform(size=labelled) < right).astype(np.float64),
        rejected=rejected,
    )


@pytest.fixture
def draw() -> Draw:
    return window
