"""A model in int8, and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass

from mlscale.compress.int8_verdict import Bounds, Figures
from mlscale.compress.quantize import Method


@dataclass(frozen=True)
class Compressed:
    """A model in int8 and what was measured of it.

    Attributes:
        model: serialised ONNX, raw samples to logits as in fp32.
        method: static or dynamic.
        calibrated: training samples that the ranges of activations are from; 0 for dynamic.
        reduced_range: whether weights have 7 bits, because this machine's products would overflow.
        figures: beside fp32.
        bounds: what must hold.
        problems: what does not, in words.
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
