"""Loaders: sized iterables of batches whose whole state is a place in an order.

Making batches from plans is another's work (a `Stream`), so that what is promised here (which sample comes when, on
which rank, how often, and how a run goes on) holds for every kind of data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from mlscale.data.order import Permutation
from mlscale.data.plan import Batch, Layout, Plan


class Stream(Protocol):
    """Makes batches, one for each plan, in order. It may work ahead; it must not look back."""

    def __call__(self, plans: Iterable[Plan]) -> Iterator[Batch]: ...


@dataclass
class Progress:
    """Where training stands: whole epochs done, and samples of this one that were handed out over all ranks."""

    epoch: int = 0
    position: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return asdict(self)


class TrainLoader:
    """Batches of one rank for training, epoch after epoch.

    Each sample comes at most once an epoch; the last global batch that is not full is left out, other samples every
    epoch. Iterating starts from `progress`, which is moved on before a batch is handed out: a sized loader is never
    run to its end, so whatever came after the last `yield` would not happen.

    Args:
        stream: makes the batches.
        samples: how many there are.
        layout: how the global batch is spread.
        seed: of the order.
        version: digest of the training data.
        progress: where to start; moved on.
        limit: batches after which an epoch ends early, as the trainer's `limit_train_batches` says.
        fixed: every epoch is the first one, to learn a few batches by heart.
    """

    def __init__(
        self,
        stream: Stream,
        samples: int,
        layout: Layout,
        *,
        seed: int,
        version: str,
        progress: Progress,
        limit: int | None = None,
        fixed: bool = False,
    ) -> None:
        self._stream, self._samples, self._layout = stream, samples, layout
        self._seed, self._version, self.progress = seed, version, progress
        self._fixed = fixed
        batches = len(self) if limit is None else min(limit, len(self))
        self._end = batches * layout.micro

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever is done of it."""
        return self._samples // self._layout.batch_size * self._layout.accumulate

    @property
    def dropped(self) -> int:
        """Samples that an epoch leaves out because they do not fill a global batch."""
        return self._samples % self._layout.batch_size

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self.progress.epoch, self.progress.position
        step = self._layout.micro
        places = range(start, self._end, step)
        for position, batch in zip(places, self._stream(self._plans(epoch, places)), strict=True):
            if position + step < self._end:
                self.progress.epoch, self.progress.position = epoch, position + step
            else:
                self.progress.epoch, self.progress.position = (epoch if self._fixed else epoch + 1), 0
            yield batch

    def _plans(self, epoch: int, places: range) -> Iterator[Plan]:
        order = Permutation(self._samples, seed=self._seed, epoch=epoch, version=self._version)
        offset, count = self._layout.rank * self._layout.per_device, self._layout.per_device
        for place in places:
            start = place + offset
            yield Plan(epoch, np.arange(start, start + count, dtype=np.int64), order.span(start, start + count))


class EvalLoader:
    """Batches of one rank for evaluation: over all ranks each sample exactly once, in the data's own order.

    Every rank has as many batches. One that has nothing left yields a single sample of weight 0.

    Args:
        stream: makes the batches.
        samples: how many there are.
        layout: how batches are spread.
    """

    def __init__(self, stream: Stream, samples: int, layout: Layout) -> None:
        self._stream, self._samples, self._layout = stream, samples, layout

    def __len__(self) -> int:
        return (self._samples + self._layout.micro - 1) // self._layout.micro

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._stream(self._plans()))

    def _plans(self) -> Iterator[Plan]:
        offset, count = self._layout.rank * self._layout.per_device, self._layout.per_device
        for place in range(0, self._samples, self._layout.micro):
            start, stop = place + offset, min(place + offset + count, self._samples)
            if start < stop:
                samples = np.arange(start, stop, dtype=np.int64)
                yield Plan(0, samples, samples, 1.0)
            else:
                last = np.array([self._samples - 1], np.int64)
                yield Plan(0, last, last, 0.0)
