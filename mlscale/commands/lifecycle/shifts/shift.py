"""One change of production."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mlscale.commands.lifecycle.production_samples import LabelledSamples

CONCEPT = "concept"
"""The shift that changes labels and leaves inputs as they are."""


@dataclass(frozen=True)
class Shift:
    """A change of production.

    Attributes:
        name: as `lifecycle.shift` names it.
        description: the change in words.
        change_sample: from a raw sample to that after the change; None: inputs stay.
        change_truth: from the truth of n samples to that after the change; None: labels stay.
        relabelled: the classes whose meaning has changed; empty where no class stays what it was.
    """

    name: str
    description: str
    change_sample: Callable[[Any], Any] | None = None
    change_truth: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    relabelled: tuple[str, ...] = ()

    @property
    def is_concept(self) -> bool:
        """True if inputs stay, and what is right for them has changed."""
        return self.change_truth is not None

    def apply_to(self, samples: LabelledSamples) -> LabelledSamples:
        """Return the samples after the change."""
        raw, truth = samples.raw, samples.truth
        if self.change_sample is not None:
            raw = [self.change_sample(sample) for sample in raw]
        return LabelledSamples(raw, truth if self.change_truth is None else self.change_truth(truth))
