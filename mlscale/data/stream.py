"""Batches of images: read and decoded ahead by threads, put together by the caller.

Threads read, decode and normalise, in PIL and numpy, which release the interpreter's lock. Whatever torch does happens
in the caller's thread: its thread count and its random generator stay as the caller set them, and a user's own
transform finds a generator that nobody else draws from. Elementwise work is numpy's: torch would wake a second thread
for a batch of a few dozen kilobytes, which on busy cores takes milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.augment import BatchAugment
from mlscale.data.bad_samples import BadSample
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
        self._mean = np.array(data.shape.mean, np.float32)[:, None, None]
        self._std = np.array(data.shape.std, np.float32)[:, None, None]

    def __call__(self, plans: Iterable[Plan]) -> Iterator[Batch | BadSample]:
        """A batch for each plan; in its place the error, where a sample of it cannot be decoded."""
        if self._workers == 0:
            for plan in plans:
                yield self._take(plan, None)
            return
        pending: deque[tuple[Plan, Future[Array] | None]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="mlscale-decode")
        try:
            for plan in plans:
                # What is in memory is quicker to copy than to hand over.
                ready = self._data.ready(plan.samples)
                pending.append((plan, None if ready else pool.submit(self._load, plan)))
                if len(pending) > self._workers * _AHEAD:
                    yield self._take(*pending.popleft())
            while pending:
                yield self._take(*pending.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, plan: Plan, future: Future[Array] | None) -> Batch | BadSample:
        try:
            return self._finish(plan, self._load(plan) if future is None else future.result())
        except BadSample as error:
            return error

    def _load(self, plan: Plan) -> Array:
        """What can be done in a thread: decoded samples, and normalised ones where nothing else comes before that."""
        x = self._data.batch(plan.samples)
        return self._normalise(x) if self._augment is None else x

    def _finish(self, plan: Plan, array: Array) -> Batch:
        if self._augment is not None:
            seeds = sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream="augment")
            array = self._normalise(self._augment(torch.from_numpy(array), seeds).numpy())
        batch: Batch = {
            "x": torch.from_numpy(array),
            "y": torch.from_numpy(self._data.labels[plan.samples]),
            "key": self._data.keys(plan.samples.tolist()),
        }
        if plan.weight is not None:
            batch["weight"] = torch.from_numpy(plan.weight)
        return batch

    def _normalise(self, x: Array) -> NDArray[np.float32]:
        """(x - mean) / std. Two steps: a fused one might round the last values of a batch in another way."""
        out = np.subtract(x, self._mean, dtype=np.float32)
        return np.divide(out, self._std, out=out)
