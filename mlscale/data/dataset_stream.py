"""Batches of a user's own map-style dataset: each sample by its number and a seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mlscale.data.augmentations.augmentation import BatchAugment, PerSampleAugment
from mlscale.data.dataset_samples import SeededDataset, load_batch
from mlscale.data.images.array_ring import ArrayRing
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.data.workers.sample_executor import SampleExecutor
from mlscale.data.workers.worker_pool import WorkerPool
from mlscale.data.workers.worker_process import WorkerFailure


class DatasetStream:
    """Makes batches of a dataset's samples, in this process or in workers; the batches are the same.

    Args:
        dataset: the samples of a split.
        split: its name.
        workers: processes that there may be.
        augment: of the batch: a user's own transform where the samples are loaded, else in this process; None for none.
        seed: of the dataset's own random numbers, and of `augment`.
        executor: has the workers; None for this process alone.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        split: str,
        workers: int,
        augment: BatchAugment | None,
        seed: int,
        executor: SampleExecutor | None = None,
    ) -> None:
        self._samples = SeededDataset(dataset, split)
        self._split, self._workers, self._augment, self._seed = split, workers, augment, seed
        self._transform = augment if isinstance(augment, PerSampleAugment) else None
        self._executor = executor
        self._ring = ArrayRing(keep=2 * workers + 4)

    def __call__(self, plans: Iterable[BatchPlan]) -> Iterator[Batch | BadSample]:
        """Yield a batch for each plan; in its place a `BadSample`, if one of its samples fails to load."""
        if self._executor is None:
            for plan in plans:
                batch = load_batch(self._samples, self._transform, *self._build_request(plan), mark=lambda row: None)
                yield self._finish_batch(plan, batch)
            return
        pending: deque[tuple[BatchPlan, Future[Any]]] = deque()
        # A thread for each worker: it waits for the worker, and copies what comes.
        threads = ThreadPoolExecutor(self._workers, thread_name_prefix="mlscale-dataset")
        with self._executor.run_epoch() as workers:
            try:
                for plan in plans:
                    pending.append((plan, threads.submit(self._receive_batch, plan, workers)))
                    if len(pending) > 2 * self._workers:
                        first, future = pending.popleft()
                        yield self._finish_batch(first, future.result())
                while pending:
                    first, future = pending.popleft()
                    yield self._finish_batch(first, future.result())
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _build_request(self, plan: BatchPlan) -> tuple[list[tuple[int, int]], NDArray[np.uint64]]:
        """Return number and seed of each sample, and the seeds of the transform."""
        seeds = derive_sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream=f"dataset {self._split}")
        return list(zip(plan.samples.tolist(), seeds.tolist(), strict=True)), self._derive_seeds(plan)

    def _receive_batch(self, plan: BatchPlan, workers: WorkerPool) -> dict[str, Any] | BadSample:
        def name_row(row: int) -> str:
            return f"{self._split}/{plan.samples[row]}"

        with workers.borrow_worker() as worker:
            try:
                arrays, rest = worker.call_work([], self._build_request(plan), name_row)
            except WorkerFailure as failure:
                # Nothing of a single sample, which has an error of its own: that they don't fit together, for example.
                raise failure.failure.error or RuntimeError(failure.failure.why) from failure
            if isinstance(rest, BadSample):
                return rest
            names, batch = rest
            for name, array in zip(names, arrays, strict=True):
                # Copied, since the worker writes its next batch to the same place.
                copied = self._ring.take_array(array.shape, array.dtype) if array.ndim else np.empty((), array.dtype)
                np.copyto(copied, array)
                batch[name] = torch.from_numpy(copied)
            return dict(batch)

    def _derive_seeds(self, plan: BatchPlan) -> NDArray[np.uint64]:
        return derive_sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream="augment")

    def _finish_batch(self, plan: BatchPlan, batch: dict[str, Any] | BadSample) -> Batch | BadSample:
        if isinstance(batch, BadSample):
            return batch
        x = batch["x"]
        if self._augment is not None and self._transform is None:
            x = self._augment(x, self._derive_seeds(plan))
        batch["x"] = x.float()
        batch["key"] = [f"{self._split}/{sample}" for sample in plan.samples.tolist()]
        if plan.weight is not None:
            batch["weight"] = torch.from_numpy(plan.weight)
        return batch
