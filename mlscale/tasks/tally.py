"""One pass of evaluation: sums of weighted means, and torchmetrics, over every sample of every rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection


class EvaluationTally:
    """The sums and metrics of an evaluation so far, on the device.

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
        # No compute groups: torchmetrics finds metrics that can share their state by the first batch's values, and
        # ranks with other results would wait for each other for ever.
        self.metrics = MetricCollection({**metrics}, compute_groups=False).to(device) if metrics else None
        self._updated = False

    def add_means(self, values: Sequence[Tensor], weight: Tensor | None) -> None:
        """Add a batch to the means: the value of each for its n samples, (n,), and their weights."""
        weight = torch.ones_like(values[0]) if weight is None else weight
        # Stays on the device: nothing here waits for a result.
        self._sums += torch.stack([*((value * weight).sum() for value in values), weight.sum()])

    def update_metrics(self, add: Callable[[MetricCollection], None]) -> None:
        """Let `add` give a batch to the metrics."""
        if self.metrics is not None:
            add(self.metrics)
            self._updated = True

    def update_without_samples(self, add: Callable[[MetricCollection], None]) -> None:
        """Let `add` give a batch whose samples all have weight 0; it counts only on a rank without another batch.

        torchmetrics gathers predictions of all ranks, and a gathered state needs a type and a shape on each; an empty
        batch does not give them.
        """
        if self.metrics is None or self._updated:
            return
        self.update_metrics(add)
        for metric in self.metrics.values():
            for name, default in metric._defaults.items():
                state = getattr(metric, name)
                # The values are removed again: dtype and shape stay, and numbers return to their defaults.
                nothing: Any = [tensor[:0] for tensor in state] if isinstance(state, list) else default
                setattr(metric, name, nothing if isinstance(state, list) else nothing.clone().to(state.device))

    def compute_values(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return every metric, scalars by name, the same on every rank.

        Args:
            total: returns the sum of a tensor over all ranks.
        """
        sums = total(self._sums)
        values = dict(zip(self._means, (sums[:-1] / sums[-1]).float(), strict=True))
        if self.metrics is not None:
            with warnings.catch_warnings():
                # For classes without a sample, and ranks without any: each metric's definition covers these.
                warnings.simplefilter("ignore", UserWarning)
                values |= self.metrics.compute()
        return values
