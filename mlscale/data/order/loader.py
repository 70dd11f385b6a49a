"""Loaders: sized iterables of batches whose whole state is a place in an order.

A `Stream` makes batches from plans, and a `SampleOrder` decides which sample comes at which position, so that the
guarantees of this module (which rank gets which batch, how often, and how a run resumes) hold for every kind of data
and every policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.batch_plan import Batch, BatchLayout, BatchPlan
from mlscale.data.order.sample_order import SampleOrder, Span

Finish = Callable[[Batch, int, NDArray[np.int64]], Batch]
"""A function that is applied to a whole batch, given its epoch and its positions in the epoch: mixup and cutmix."""

Follow = Callable[[int, Span, int, int], AbstractContextManager[Callable[[int], None]]]
"""Prepares for an epoch, given its number, its order, and the positions at which it starts and stops; what it yields is
called with each position that is planned. Shards on other machines are downloaded ahead by it."""


@contextmanager
def follow_nothing(epoch: int, span: Span, start: int, stop: int) -> Iterator[Callable[[int], None]]:
    """Prepare nothing, as for samples that are on this machine."""
    yield lambda position: None


class Batches(Protocol):
    """Makes batches from plans, and knows what to do about samples that cannot be read."""

    def __call__(
        self, plans: Iterable[BatchPlan], list_global_batch: Callable[[BatchPlan], NDArray[np.int64]]
    ) -> Iterator[Batch]:
        """Yield a batch for each plan; `list_global_batch` returns the samples of the global batch of a plan."""


@dataclass
class LoaderProgress:
    """The position of training: completed epochs, and samples of the current epoch handed out over all ranks."""

    epoch: int = 0
    position: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, for a checkpoint."""
        return asdict(self)


class TrainLoader:
    """Batches of one rank for training, epoch after epoch.

    The last global batch that is not full is left out, other samples every epoch; or it is filled up by samples of
    weight 0. Iterating starts from `progress`, which is advanced before a batch is handed out: a sized loader is never
    run to its end, so code after the last `yield` would not run.

    Args:
        batches: makes the batches.
        sampling: which sample comes when.
        layout: how the global batch is spread.
        progress: where to start; advanced.
        pad: fill the last global batch up, by the first samples of the epoch's order, in place of leaving it out.
        finish: done to every batch.
        limit: batches after which an epoch ends early, by the trainer's `limit_train_batches`.
        fixed: every epoch is the first one, to learn a few batches by heart.
        follow: see `Follow`.
    """

    def __init__(
        self,
        batches: Batches,
        sampling: SampleOrder,
        layout: BatchLayout,
        *,
        progress: LoaderProgress,
        pad: bool = False,
        finish: Finish | None = None,
        limit: int | None = None,
        fixed: bool = False,
        follow: Follow = follow_nothing,
    ) -> None:
        self._batches, self._sampling, self._layout, self.progress = batches, sampling, layout, progress
        self._pad, self._finish, self._fixed, self._follow = pad, finish, fixed, follow
        count = len(self) if limit is None else min(limit, len(self))
        # Positions count samples over all ranks, so the end is in units of `micro` and not of this rank's batches.
        self._end = count * layout.micro

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, regardless of `limit`."""
        return self._layout.count_steps(self._sampling.length, pad=self._pad) * self._layout.accumulate

    @property
    def dropped(self) -> int:
        """The number of samples that an epoch leaves out because they do not fill a global batch."""
        return 0 if self._pad else self._sampling.length % self._layout.batch_size

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self.progress.epoch, self.progress.position
        step, span = self._layout.micro, self._sampling.get_epoch_order(epoch)
        positions = range(start, self._end, step)
        batches = self._batches(
            self._iterate_plans(epoch, span, positions), lambda plan: self._list_global_batch(span, plan)
        )
        for position, batch in zip(positions, batches, strict=True):
            # Before the yield: Lightning takes len(self) batches and does not resume the generator after the last one.
            if position + step < self._end:
                self.progress.epoch, self.progress.position = epoch, position + step
            else:
                # With `fixed` every epoch has the order of the first, so the epoch does not advance.
                self.progress.epoch, self.progress.position = (epoch if self._fixed else epoch + 1), 0
            yield batch if self._finish is None else self._finish(batch, epoch, self._compute_positions(position))

    def _iterate_plans(self, epoch: int, span: Span, starts: range) -> Iterator[BatchPlan]:
        stop = min(starts.stop, self._sampling.length)
        with self._follow(epoch, span, starts.start, stop) as reach_position:
            for position in starts:
                reach_position(position)
                positions = self._compute_positions(position)
                samples = self._take_samples(span, int(positions[0]), int(positions[-1]) + 1)
                # Positions past the epoch's length repeat its first samples; weight 0 keeps them out of the loss.
                weight = (positions < self._sampling.length).astype(np.float32) if self._pad else None
                yield BatchPlan(epoch, positions, samples, weight)

    def _compute_positions(self, position: int) -> NDArray[np.int64]:
        """Return this rank's positions in the forward pass that begins at a position, int64."""
        start = position + self._layout.rank * self._layout.per_device
        return np.arange(start, start + self._layout.per_device, dtype=np.int64)

    def _list_global_batch(self, span: Span, plan: BatchPlan) -> NDArray[np.int64]:
        """Return the samples of the global batch that a plan is part of."""
        # The batch of a whole optimizer step, not of a forward pass: replacements must not depend on the layout.
        start = int(plan.positions[0]) // self._layout.batch_size * self._layout.batch_size
        return self._take_samples(span, start, start + self._layout.batch_size)

    def _take_samples(self, span: Span, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples at positions [start, stop); positions past an epoch's end wrap to its first samples."""
        length = self._sampling.length
        if stop <= length:
            return span(start, stop)
        # With `last=pad` a batch may be larger than the data, so it may wrap more than once.
        parts = []
        while start < stop:
            low = start % length
            parts.append(span(low, min(low + stop - start, length)))
            start += len(parts[-1])
        return np.concatenate(parts)


class EvalLoader:
    """Batches of one rank for evaluation: over all ranks each sample exactly once, in the data's own order.

    Every rank has as many batches. One that has nothing left yields a single sample of weight 0.

    Args:
        batches: makes the batches.
        samples: how many there are.
        layout: how batches are spread.
        follow: see `Follow`.
    """

    def __init__(self, batches: Batches, samples: int, layout: BatchLayout, follow: Follow = follow_nothing) -> None:
        self._batches, self._samples, self._layout, self._follow = batches, samples, layout, follow

    def __len__(self) -> int:
        return self._layout.count_passes(self._samples)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches(self._iterate_plans(), self._list_global_batch))

    def list_batch_rows(self, number: int) -> range:
        """Return the samples of this rank's batch `number`; an empty range if none is left for it."""
        start = number * self._layout.micro + self._layout.rank * self._layout.per_device
        return range(start, max(start, min(start + self._layout.per_device, self._samples)))

    def _iterate_plans(self) -> Iterator[BatchPlan]:
        with self._follow(0, _list_positions, 0, self._samples) as reach_position:
            yield from self._iterate_rows(reach_position)

    def _iterate_rows(self, reach_position: Callable[[int], None]) -> Iterator[BatchPlan]:
        for number in range(len(self)):
            reach_position(number * self._layout.micro)
            if rows := self.list_batch_rows(number):
                samples = np.array(rows, np.int64)
                yield BatchPlan(0, samples, samples, np.ones(len(rows), np.float32))
            else:
                # All ranks need as many batches, else one of them waits for the others in a collective operation.
                last = np.array([self._samples - 1], np.int64)
                yield BatchPlan(0, last, last, np.zeros(1, np.float32))

    def _list_global_batch(self, plan: BatchPlan) -> NDArray[np.int64]:
        # Evaluation has no optimizer step: its global batch is one forward pass over all ranks.
        start = int(plan.samples[0]) // self._layout.micro * self._layout.micro
        return np.arange(start, min(start + self._layout.micro, self._samples), dtype=np.int64)


def _list_positions(start: int, stop: int) -> NDArray[np.int64]:
    """Return the samples at positions of evaluation, which has the data's own order."""
    return np.arange(start, stop, dtype=np.int64)
