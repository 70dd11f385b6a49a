"""A model in int8 with its measurements."""

from __future__ import annotations

from dataclasses import dataclass

from mlscale.compress.int8_verdict import Int8Bounds, Int8Metrics
from mlscale.compress.quantize import Method


@dataclass(frozen=True)
class CompressedModel:
    """A model in int8 with its measurements.

    Attributes:
        model: serialised ONNX, encoded samples to the task's outputs as in fp32.
        method: static or dynamic.
        calibrated: number of training samples that the ranges of activations are from; 0 for dynamic.
        reduced_range: true if weights have 7 bits, because this machine's products would overflow.
        metrics: the metrics compared with fp32.
        bounds: the bounds to meet.
        problems: each bound that is not met, in words.
    """

    model: bytes
    method: Method
    calibrated: int
    reduced_range: bool
    metrics: Int8Metrics
    bounds: Int8Bounds
    problems: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        return not self.problems
