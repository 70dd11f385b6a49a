"""Batches of images: read and decoded ahead by threads, put together by the caller.

Threads only read and decode, in PIL and numpy, which release the interpreter's lock. Whatever torch does happens in the
caller's thread: torch's thread count and its random generator stay as the caller set them, and a user's own transform
finds a generator that nobody else draws from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from mlscale.data.augment import BatchAugment
from mlscale.data.decode import Array
from mlscale.data.decoded import Decoded
from mlscale.data.order import sample_seeds
from mlscale.data.plan import Batch, Plan

_AHEAD = 2
"""Batches in work or waiting, per thread."""


class ImageStream:
    """Makes batches from decoded samples: (x - mean) / std by channel, after augmentation.

    Args:
        data: the split.
        workers: threads that decode; 0 decodes in the caller's thread.
        augment: applied to the whole batch before it is normalised; None for none.
        seed: of the augmentation.
    """

    def __init__(self, data: Decoded, *, workers: int, augment: BatchAugment | None, seed: int) -> None:
        self._data, self._workers, self._augment, self._seed = data, workers, augment, seed
        self._labels = torch.from_numpy(data.labels)
        self._mean = torch.tensor(data.shape.mean, dtype=torch.float32)[:, None, None]
        self._std = torch.tensor(data.shape.std, dtype=torch.float32)[:, None, None]

    def __call__(self, plans: Iterable[Plan]) -> Iterator[Batch]:
        if self._workers == 0:
            for plan in plans:
                yield self._finish(plan, self._data.batch(plan.samples))
            return
        pending: deque[tuple[Plan, Future[Array] | None]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="mlscale-decode")
        try:
            for plan in plans:
                # What is in memory is quicker to copy than to hand over.
                ready = self._data.ready(plan.samples)
                pending.append((plan, None if ready else pool.submit(self._data.batch, plan.samples)))
                if len(pending) > self._workers * _AHEAD:
                    yield self._take(*pending.popleft())
            while pending:
                yield self._take(*pending.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, plan: Plan, future: Future[Array] | None) -> Batch:
        return self._finish(plan, self._data.batch(plan.samples) if future is None else future.result())

    def _finish(self, plan: Plan, array: Array) -> Batch:
        x = torch.from_numpy(array)
        if self._augment is not None:
            seeds = sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream="augment")
            x = self._augment(x, seeds)
        # Subtract, then divide: a fused step might round the last values of a batch in another way than the others.
        x = x.float().sub_(self._mean).div_(self._std)
        samples = torch.from_numpy(plan.samples)
        batch: Batch = {
            "x": x,
            "y": self._labels[samples],
            "key": self._data.keys(plan.samples.tolist()),
        }
        if plan.weight is not None:
            batch["weight"] = torch.full((len(samples),), plan.weight)
        return batch
