"""Which samples are in which batch of which rank: arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError

Batch = dict[str, Any]
"""What a loader yields: `x` float32 (n, C, H, W), `y` int64 (n,), `key` list of n names, and in evaluation `weight`
float32 (n,), 0 for a sample that is only there so that every rank has as many batches."""


class Plan(NamedTuple):
    """One batch to be made.

    Args:
        epoch: passes over the data before this one.
        positions: places in the epoch's order, int64 (n,); they seed augmentation.
        samples: the samples at these places, int64 (n,).
        weight: 0 or 1 for the whole batch in evaluation, None in training.
    """

    epoch: int
    positions: NDArray[np.int64]
    samples: NDArray[np.int64]
    weight: float | None = None


@dataclass(frozen=True)
class Layout:
    """How a global batch is spread over ranks and forward passes.

    Micro-step a and rank r of the global batch that starts at position p take the `per_device` positions from
    p + a · `micro` + r · `per_device`: the union over all is the global batch, whatever the layout.

    Args:
        batch_size: samples of one optimizer step, over all ranks and forward passes.
        world_size: ranks.
        rank: this one.
        accumulate: forward passes of one optimizer step.
    """

    batch_size: int
    world_size: int = 1
    rank: int = 0
    accumulate: int = 1

    @property
    def micro(self) -> int:
        """Samples of one forward pass over all ranks."""
        return self.batch_size // self.accumulate

    @property
    def per_device(self) -> int:
        """Samples of one forward pass of one rank."""
        return self.micro // self.world_size

    def check(self, samples: int) -> None:
        """Can training on so many samples be laid out so?

        Raises:
            MLScaleError: the batch does not divide, or is larger than the data.
        """
        parts = self.world_size * self.accumulate
        if self.batch_size < 1 or self.batch_size % parts:
            low = self.batch_size // parts * parts
            near = [size for size in (low, low + parts) if size > 0]
            raise MLScaleError(
                f"A batch of {self.batch_size} does not divide over {self.world_size} processes and "
                f"{self.accumulate} forward passes.",
                where="data.batch_size",
                why=f"it is the batch of one optimizer step over all of them, so a multiple of {parts}",
                fix=" or ".join(f"data.batch_size={size}" for size in near),
            )
        if self.batch_size > samples:
            fits = samples // parts * parts
            raise MLScaleError(
                f"A batch of {self.batch_size} is larger than the training data, {samples} samples.",
                where="data.batch_size",
                why="a last batch that is not full is left out, so nothing would be trained on",
                fix=f"data.batch_size={fits}" if fits else "train on fewer processes, or more samples",
            )
