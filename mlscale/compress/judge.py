"""Is int8 worth it? Both models on the same samples, and in turns on one thread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mlscale.export.engine import Engine
from mlscale.export.latency import medians
from mlscale.export.samples import Samples

BATCH = 32
"""Samples of the larger batch that is timed beside a single one."""


@dataclass(frozen=True)
class Bounds:
    """What must hold for int8 to be kept.

    Attributes:
        max_accuracy_drop: of the validation accuracy, as a share of the samples.
        min_agreement: share of the samples that get the same class.
        min_speedup: time of fp32 over time of int8, of one sample on one thread.
    """

    max_accuracy_drop: float
    min_agreement: float
    min_speedup: float


@dataclass(frozen=True)
class Figures:
    """Two models on the same n validation samples.

    Attributes:
        samples: n.
        fp32_right, int8_right: how many each gets right.
        fp32_only, int8_only: right in one and wrong in the other, the pairs that tell the two apart (McNemar 1947).
        agree: samples that get the same class, right or wrong.
        fp32_latency_ms, int8_latency_ms: median of one sample on one thread.
        fp32_batch_ms, int8_batch_ms: of a batch of 32.
        fp32_bytes, int8_bytes: of the serialised model.
    """

    samples: int
    fp32_right: int
    int8_right: int
    fp32_only: int
    int8_only: int
    agree: int
    fp32_latency_ms: float
    int8_latency_ms: float
    fp32_batch_ms: float
    int8_batch_ms: float
    fp32_bytes: int
    int8_bytes: int

    @property
    def fp32_accuracy(self) -> float:
        return self.fp32_right / self.samples

    @property
    def int8_accuracy(self) -> float:
        return self.int8_right / self.samples

    @property
    def accuracy_drop(self) -> float:
        """The paired difference; negative where int8 is better."""
        return (self.fp32_only - self.int8_only) / self.samples

    @property
    def accuracy_drop_at_most(self) -> float:
        """What the drop may be on other samples like these, with 95 % confidence: the end of Tango's interval."""
        from mlscale.stats.paired import score_interval

        return -score_interval(self.int8_only, self.fp32_only, self.samples)[0]

    @property
    def agreement(self) -> float:
        return self.agree / self.samples

    @property
    def speedup(self) -> float:
        return self.fp32_latency_ms / self.int8_latency_ms

    @property
    def batch_speedup(self) -> float:
        return self.fp32_batch_ms / self.int8_batch_ms

    @property
    def smaller(self) -> float:
        """Size of fp32 over size of int8."""
        return self.fp32_bytes / self.int8_bytes

    @property
    def discordance(self) -> str:
        """The pairs, in words."""
        return (
            f"of {self.samples:,} samples {self.fp32_only} are right in fp32 alone and {self.int8_only} in int8 alone"
        )

    def problems(self, bounds: Bounds) -> list[str]:
        """Each bound that does not hold, with its number."""
        found = []
        if not self.speedup >= bounds.min_speedup:
            word = "slower" if self.speedup < 1 else "hardly faster"
            found.append(f"{word}, {self.speedup:.2f}× as fast as fp32, where {bounds.min_speedup:g}× is wanted")
        if not self.accuracy_drop <= bounds.max_accuracy_drop:
            found.append(f"accuracy falls by {self.accuracy_drop:.4f}, more than {bounds.max_accuracy_drop:g}")
        if not self.agreement >= bounds.min_agreement:
            found.append(f"{self.agreement:.2%} of the classes agree, fewer than {bounds.min_agreement:.2%}")
        return found


def compare(fp32: bytes, int8: bytes, batches: Iterable[Samples]) -> Figures:
    """Give both models the same samples, then time them, round by round one after the other.

    Args:
        fp32, int8: serialised models.
        batches: at least one.
    """
    engines = Engine(fp32), Engine(int8)
    counts = dict.fromkeys(("samples", "fp32_right", "int8_right", "fp32_only", "int8_only", "agree"), 0)
    first = None
    for samples in batches:
        first = samples.raw if first is None else first
        classes = [engine.run(samples.raw).argmax(-1) for engine in engines]
        right = [chosen == samples.y for chosen in classes]
        for name, picked in (
            ("samples", np.ones_like(right[0])),
            ("fp32_right", right[0]),
            ("int8_right", right[1]),
            ("fp32_only", right[0] & ~right[1]),
            ("int8_only", right[1] & ~right[0]),
            ("agree", classes[0] == classes[1]),
        ):
            counts[name] += int(picked.sum())
    assert first is not None
    one, many = first[:1], first[np.arange(BATCH) % len(first)]
    single = medians(*(lambda engine=engine: engine.run(one) for engine in engines))
    batch = medians(*(lambda engine=engine: engine.run(many) for engine in engines))
    return Figures(
        **counts,
        fp32_latency_ms=single[0],
        int8_latency_ms=single[1],
        fp32_batch_ms=batch[0],
        int8_batch_ms=batch[1],
        fp32_bytes=len(fp32),
        int8_bytes=len(int8),
    )
