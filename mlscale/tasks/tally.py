"""One pass of evaluation: sums of weighted means, and torchmetrics, over every sample of every rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection


class Tally:
    """What an evaluation has seen so far, on the device.

    Args:
        means: names of the metrics that are weighted means.
        metrics: new torchmetrics by name.
        device: where batches are.
    """

    def __init__(self, means: Sequence[str], metrics: dict[str, Metric], device: torch.device) -> None:
        self._means = tuple(means)
        # Whole numbers are exact in float32 up to 2^24 only, fewer samples than a large evaluation set has.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(len(means) + 1, dtype=dtype, device=device)
        # Each for itself: which could share what they keep, torchmetrics finds by the values of the first batch, and
        # ranks that found another answer would wait for each other for ever.
        self.metrics = MetricCollection({**metrics}, compute_groups=False).to(device) if metrics else None
        self._updated = False

    def add(self, values: Sequence[Tensor], weight: Tensor | None) -> None:
        """Count a batch in the means: the value of each for its n samples, (n,), and their weights."""
        weight = torch.ones_like(values[0]) if weight is None else weight
        self._sums += torch.stack([*((value * weight).sum() for value in values), weight.sum()])

    def update(self, add: Callable[[MetricCollection], None]) -> None:
        """Let `add` give a batch to the metrics."""
        if self.metrics is not None:
            add(self.metrics)
            self._updated = True

    def update_with_nothing(self, add: Callable[[MetricCollection], None]) -> None:
        """Let `add` give a batch whose samples all count for nothing; only of a rank that has no other is it taken.

        torchmetrics gathers predictions of all ranks, and what is gathered needs a type and a shape on each; of an
        empty batch it can't tell them.
        """
        if self.metrics is None or self._updated:
            return
        self.update(add)
        for metric in self.metrics.values():
            for name, default in metric._defaults.items():
                state = getattr(metric, name)
                nothing: Any = [each[:0] for each in state] if isinstance(state, list) else default
                setattr(metric, name, nothing if isinstance(state, list) else nothing.clone().to(state.device))

    def result(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Every metric, scalars by name, the same on every rank.

        Args:
            total: the sum of a tensor over all ranks.
        """
        sums = total(self._sums)
        values = dict(zip(self._means, (sums[:-1] / sums[-1]).float(), strict=True))
        if self.metrics is not None:
            with warnings.catch_warnings():
                # Of classes without a sample, and of ranks without any: what counts then is each metric's definition.
                warnings.simplefilter("ignore", UserWarning)
                values |= self.metrics.compute()
        return values
