"""Assign the ordered samples to the batches of each rank, by arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError

Batch = dict[str, Any]
"""A batch of a loader: `x` float32 (n, C, H, W), `y` int64 (n,) or float32 (n, classes) or uint8 (n, H, W) for one
label, for several or by mixup, or for masks; `key` list of n names, and `weight` float32 (n,), 0 for a sample that does
not count: it fills a batch up, or replaces one that could not be read. Training has weights only where a policy may
need them (`data.last=pad`, `data.on_bad_sample=skip`)."""


class BatchPlan(NamedTuple):
    """One batch to be made.

    Args:
        epoch: passes over the data before this one.
        positions: places in the epoch's order, int64 (n,); they seed augmentation.
        samples: the samples at these places, int64 (n,).
        weight: of each sample, float32 (n,), 0 for one that does not count; None where all count.
    """

    epoch: int
    positions: NDArray[np.int64]
    samples: NDArray[np.int64]
    weight: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class BatchLayout:
    """The split of a global batch over ranks and forward passes.

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
        """The number of samples of one forward pass, over all ranks."""
        return self.batch_size // self.accumulate

    @property
    def per_device(self) -> int:
        """The number of samples of one forward pass of one rank."""
        return self.micro // self.world_size

    def count_steps(self, samples: int, *, pad: bool = False) -> int:
        """Return the optimizer steps of an epoch of so many samples; the last partial one is dropped, or padded."""
        return -(-samples // self.batch_size) if pad else samples // self.batch_size

    def count_passes(self, samples: int) -> int:
        """Return the number of forward passes that see so many samples once."""
        return -(-samples // self.micro)

    def check_batch_size(self, samples: int | None = None) -> None:
        """Raise if the batch can't be split, or is larger than the data, whose last partial batch is dropped.

        Raises:
            MLScaleError: the batch does not divide, or is larger than the data.
        """
        # Every rank takes `per_device` samples in every forward pass, so only whole multiples can be laid out.
        parts = self.world_size * self.accumulate
        if self.batch_size < 1 or self.batch_size % parts:
            low = self.batch_size // parts * parts
            # Suggest the neighbours that divide; below `parts` there is only the upper one.
            near = [size for size in (low, low + parts) if size > 0]
            raise MLScaleError(
                f"a batch of {self.batch_size} does not divide over {self.world_size} processes and "
                f"{self.accumulate} forward passes",
                where="data.batch_size",
                why=f"it is the batch of one optimizer step over all of them, so a multiple of {parts}",
                fix="\n".join(f"data.batch_size={size}" for size in near),
            )
        if samples is not None and self.batch_size > samples:
            # 0 where there are fewer samples than parts: then no batch size fits without padding.
            fits = samples // parts * parts
            raise MLScaleError(
                f"a batch of {self.batch_size} is larger than the training data, {samples} samples",
                where="data.batch_size",
                why="a last batch that is not full is left out, so nothing would be trained on",
                fix=f"data.batch_size={fits}\ndata.last=pad" if fits else "data.last=pad",
            )
