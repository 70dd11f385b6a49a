"""A model in int8 with its measurements."""

from __future__ import annotations

from dataclasses import dataclass

from mlscale.compress.int8_verdict import Bounds, Figures
from mlscale.compress.quantize import Method


@dataclass(frozen=True)
class Compressed:
    """A model in int8 with its measurements.

    Attributes:
        model: serialised ONNX, raw samples to logits as in fp32.
        method: static or dynamic.
        calibrated: number of training samples that the ranges of activations are from; 0 for dynamic.
        reduced_range: true if weights have 7 bits, because this machine's products would overflow.
        figures: the metrics compared with fp32.
        bounds: the bounds to meet.
        problems: each bound that is not met, in words.
    """

    model: bytes
    method: Method
    calibrated: int
    reduced_range: bool
    figures: Figures
    bounds: Bounds
    problems: tuple[str, ...]

    @property
    def kept(self) -> bool:
        return not self.problems
