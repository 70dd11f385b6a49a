"""A user's own transform on the samples of a batch, in the caller's thread or in workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.augmentations.augmentation import BatchAugment, PerSampleAugment, check_sizes
from mlscale.data.images.decoded_cache import DecodedSamples
from mlscale.data.shards.member_decoder import Array
from mlscale.data.workers.sample_executor import SampleExecutor
from mlscale.data.workers.serve_requests import Failure, Mark, describe_failure
from mlscale.data.workers.worker_process import WorkerFailure, WorkerPool
from mlscale.errors import MLScaleError


@dataclass(frozen=True)
class TransformWork:
    """The work of a worker: the transform, on a few samples and their masks."""

    augment: PerSampleAugment

    def __call__(self, arrays: Sequence[Array], request: Any, mark: Mark) -> tuple[list[Array], Any]:
        """Return the changed samples, and masks if there are any.

        Args:
            arrays: x (n, C, H, W), and masks (n, H, W) or nothing.
            request: the seed of each sample, uint64 (n,).
            mark: see `serve_requests`.
        """
        tensors = [torch.from_numpy(array) for array in arrays]
        return [result.numpy() for result in _apply_transform(self.augment, tensors, request, mark)], None


def build_transform_executor(augment: BatchAugment | None, choice: str, count: int) -> SampleExecutor | None:
    """Return what runs a transform; None if it is not one in Python, or stays in this process.

    Args:
        augment: of the samples.
        choice: `data.executor`.
        count: threads that decode, each of which may have a worker.
    """
    if not isinstance(augment, PerSampleAugment) or choice != "process" or count < 1:
        return None
    return SampleExecutor(partial(TransformWork, augment), name=augment.name, count=count)


class SampleTransform:
    """Applies a transform to samples of a split, and names the sample where it fails.

    Args:
        augment: the transform.
        data: the split.
    """

    def __init__(self, augment: PerSampleAugment, data: DecodedSamples) -> None:
        self._augment, self._data = augment, data

    @property
    def name(self) -> str:
        """The name of the transform."""
        return self._augment.name

    def change_batch(
        self, samples: NDArray[np.int64], seeds: NDArray[np.uint64], arrays: Sequence[Array]
    ) -> list[Array]:
        """Return x of a batch, and its masks if there are any, changed in this thread."""
        row = 0

        def mark(number: int) -> None:
            nonlocal row
            row = number

        try:
            results = _apply_transform(self._augment, [torch.from_numpy(array) for array in arrays], seeds, mark)
        except MLScaleError:
            raise
        except Exception as error:
            raise self._build_error(int(samples[row]), describe_failure(error)) from error
        return [result.numpy() for result in results]

    def change_in_worker(
        self,
        workers: WorkerPool,
        samples: NDArray[np.int64],
        seeds: NDArray[np.uint64],
        read_row: Callable[[int], Sequence[Array]],
        take: Callable[[Sequence[Array]], None],
    ) -> None:
        """Let a worker change samples.

        Args:
            workers: of the transform.
            samples: their numbers.
            seeds: of each.
            read_row: returns a sample, and its mask if there are any.
            take: is given what came of them; the arrays are only valid during the call.
        """
        shape = self._data.shape
        count, size = len(samples), (shape.height, shape.width)
        kinds: list[tuple[tuple[int, ...], str]] = [((count, shape.channels, *size), shape.dtype.str)]
        if self._data.masks is not None:
            kinds.append(((count, *size), "|u1"))
        with workers.borrow_worker() as worker:
            places = worker.scratch.place_arrays(kinds)
            views = worker.scratch.view_arrays(places)
            for row in range(count):
                # Decoded straight to where the worker finds it.
                for view, array in zip(views, read_row(row), strict=True):
                    view[row] = array
            try:
                results, _ = worker.call_work(places, seeds, lambda row: self._data.source.get_key(int(samples[row])))
            except WorkerFailure as failure:
                # Such as a result of another type: it is about the transform, and not about a sample.
                if isinstance(failure.failure.error, MLScaleError):
                    raise failure.failure.error from failure
                raise self._build_error(int(samples[worker.scratch.row]), failure.failure) from failure
            take(results)

    def _build_error(self, sample: int, failure: Failure) -> MLScaleError:
        shape = self._data.shape
        return MLScaleError(
            f"{self._augment.name} failed at the sample {self._data.source.get_key(sample)}",
            where=f"augment; {failure.where}",
            why=f"{failure.why}; it is given a {shape.dtype.name} tensor of "
            f"({shape.channels}, {shape.height}, {shape.width})",
            fix="MLSCALE_TRACEBACK=1, which prints all lines that led there\naugment=none",
        )


class ChangedBatch:
    """The arrays of a batch whose samples workers change: their size is known once the first are there.

    Args:
        name: of the transform, for messages.
        count: samples.
        take_array: returns an array for x, given its shape.
    """

    def __init__(self, name: str, count: int, take_array: Callable[[tuple[int, ...]], NDArray[np.float32]]) -> None:
        self._name, self._count, self._take_array = name, count, take_array
        # Several threads may have the first samples at the same time.
        self._lock = threading.Lock()
        self.x: NDArray[np.float32] | None = None
        self.masks: Array | None = None

    def write_rows(self, rows: range, results: Sequence[Array], normalise_into: Callable[[Array, Array], None]) -> None:
        """Normalise changed samples to their rows, and copy their masks.

        Raises:
            MLScaleError: they have another size than others of the batch.
        """
        x, *masks = results
        with self._lock:
            if self.x is None:
                self.x = self._take_array((self._count, *x.shape[1:]))
                self.masks = np.empty((self._count, *masks[0].shape[1:]), masks[0].dtype) if masks else None
        check_sizes(self._name, x.shape[1:], self.x.shape[1:])
        # Row by row, as threads that have no workers do, and so bitwise the same.
        for at, row in enumerate(rows):
            normalise_into(x[at], self.x[row])
        if self.masks is not None:
            self.masks[rows.start : rows.stop] = masks[0]


def _apply_transform(
    augment: PerSampleAugment, tensors: Sequence[torch.Tensor], seeds: NDArray[np.uint64], mark: Mark
) -> Sequence[torch.Tensor]:
    if len(tensors) == 1:
        return [augment(tensors[0], seeds, mark)]
    return augment.augment_with_masks(tensors[0], tensors[1], seeds, mark)
