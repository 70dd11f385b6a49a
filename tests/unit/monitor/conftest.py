"""A baseline and windows that are drawn from known distributions."""

from collections.abc import Callable

import numpy as np
import pytest

from mlscale.monitor.baseline import Baseline
from mlscale.monitor.event_window import EventWindow

CLASSES = np.array([0.4, 0.3, 0.2, 0.05, 0.03, 0.02])
Draw = Callable[..., EventWindow]


def baseline(samples: int = 1000, seed: int = 0, channels: int = 3) -> Baseline:
    """What `window` draws from, as it was seen on `samples` samples."""
    drawn = window(samples, seed=seed, channels=channels)
    return Baseline(
        model="m",
        version="m:v1",
        labels=tuple("abcdef"),
        picture=True,
        input_mean=drawn.input_mean.T,
        input_std=drawn.input_std.T,
        confidence=drawn.confidence,
        class_counts=np.bincount(drawn.predicted, minlength=6),
        accuracy=0.99,
        samples=samples,
    )


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
    return EventWindow(
        input_mean=means.astype(np.float32),
        input_std=stds.astype(np.float32),
        confidence=confidence.astype(np.float32),
        predicted=generator.choice(6, n, p=CLASSES).astype(np.int32),
        latency_ms=generator.exponential(latency_ms, n).astype(np.float32),
        is_correct=generator.uniform(size=labelled) < right,
        rejected=rejected,
    )


@pytest.fixture
def draw() -> Draw:
    return window
