"""Batches of a user's own map-style dataset: samples are loaded by number and seed, and put together."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from mlscale.data.augmentations.augmentation import (
    BatchAugment,
    PerSampleAugment,
    compute_single_threaded,
    preserve_global_generators,
    seed_generators,
)
from mlscale.data.images.array_ring import ArrayRing
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.data.workers.sample_executor import SampleExecutor
from mlscale.data.workers.serve_requests import Mark
from mlscale.data.workers.worker_process import WorkerFailure, WorkerPool
from mlscale.errors import MLScaleError


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


@dataclass(frozen=True)
class DatasetWork:
    """The work of a worker: load samples of a dataset, and put them together."""

    samples: SeededDataset
    augment: PerSampleAugment | None

    def __call__(self, arrays: Sequence[NDArray[Any]], request: Any, mark: Mark) -> tuple[list[NDArray[Any]], Any]:
        """Return the tensors of a batch as arrays; their names and the batch without them; or a bad sample.

        Args:
            arrays: none.
            request: number and seed of each sample, and the seeds of `augment`, uint64 (n,).
            mark: see `serve_requests`.
        """
        requests, seeds = request
        batch = load_batch(self.samples, self.augment, requests, seeds, mark)
        if isinstance(batch, BadSample):
            return [], batch
        # bfloat16 and the like are unknown to numpy, and are sent as they are.
        apart = [name for name, value in batch.items() if _is_array(value)]
        return [batch[name].numpy() for name in apart], (apart, {**batch, **dict.fromkeys(apart)})


def load_batch(
    samples: SeededDataset,
    augment: PerSampleAugment | None,
    requests: Sequence[tuple[int, int]],
    seeds: NDArray[np.uint64],
    mark: Mark,
) -> dict[str, Any] | BadSample:
    """Return the samples of a batch, changed by a transform; or the first that fails to load.

    Args:
        samples: of a split.
        augment: changes x; None for nothing.
        requests: number and seed of each sample.
        seeds: of `augment`, uint64 (n,).
        mark: called with the row that is being made.
    """
    loaded: list[Any] = []
    # As a worker has it, which shares its generators with nothing: the samples are the same in both.
    with preserve_global_generators(), compute_single_threaded():
        for row, request in enumerate(requests):
            mark(row)
            loaded.append(samples[request])
    batch: dict[str, Any] | BadSample = _collate_samples(loaded)
    if augment is not None and isinstance(batch, dict):
        batch["x"] = augment(batch["x"], seeds, mark)
    return batch


def _is_array(value: object) -> bool:
    if not isinstance(value, Tensor):
        return False
    # numpy has no bfloat16, and no view of a tensor that needs gradients.
    try:
        value.numpy()
    except (RuntimeError, TypeError):
        return False
    return True


class SeededDataset(Dataset[dict[str, Any] | BadSample]):
    """A dataset that is indexed by (sample, seed). A sample that fails to load is replaced by its error."""

    def __init__(self, dataset: Dataset[Any], split: str) -> None:
        self._dataset, self._split, self._where = dataset, split, f"data.{split}"

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, request: tuple[int, int]) -> dict[str, Any] | BadSample:
        index, seed = request
        seed_generators(seed)
        try:
            sample = self._dataset[index]
        except MLScaleError:
            raise
        except Exception as error:
            # The innermost frame: the line of the user's code, or of what it calls, that failed.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            bad = BadSample(
                index,
                f"{self._split}/{index}",
                f"cannot be had from the dataset {type(self._dataset).__name__}",
                where=f"{self._where}; {frame.filename}:{frame.lineno}",
                why=f"{type(error).__name__}: {error}",
            )
            # By hand, because it is returned and not raised.
            bad.__cause__ = error
            return bad
        x, y = parse_pair(sample, self._where)
        extra = {k: v for k, v in sample.items() if k not in ("x", "y")} if isinstance(sample, Mapping) else {}
        return {"x": x, "y": torch.tensor(y), **extra}


def _collate_samples(samples: list[Any]) -> Any:
    """Return a batch, or the first error among the samples."""
    bad = next((sample for sample in samples if isinstance(sample, BadSample)), None)
    if bad is not None:
        return bad
    # What else a dataset's samples have, those of production lack.
    shared = set.intersection(*(set(sample) for sample in samples))
    return default_collate([{name: sample[name] for name in sample if name in shared} for sample in samples])


def parse_pair(sample: object, where: str) -> tuple[Tensor, int]:
    """Return x and y of a sample.

    Raises:
        MLScaleError: it is neither a pair nor a dict with x and y, x is not an array, or y not a whole number.
    """
    if isinstance(sample, Mapping):
        x, y = sample.get("x"), sample.get("y")
        kind = f"a dict of {', '.join(map(str, sample))}"
    elif isinstance(sample, tuple | list) and len(sample) == 2:
        x, y = sample
        kind = f"({type(x).__name__}, {type(y).__name__})"
    else:
        x, y, kind = None, None, type(sample).__name__
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x)
    if isinstance(y, Tensor | np.generic | np.ndarray) and np.asarray(y).size == 1:
        y = y.item()
    if not isinstance(x, Tensor) or isinstance(y, bool) or not isinstance(y, int):
        raise MLScaleError(
            f"the dataset's samples are {kind}",
            where=where,
            why="a sample is (x, y) or a dict of both, x a tensor, y a class number; else docs/lightning-module.md",
            fix="let the dataset return tensors (transform=torchvision.transforms.v2.ToImage()) and whole numbers\n"
            "or, for labels of another kind, data=webdataset, data=table, or a LightningDataModule of your own",
        )
    return (x.float() / 255 if x.dtype == torch.uint8 else x), y
