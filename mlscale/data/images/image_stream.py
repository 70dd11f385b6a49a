"""Batches of images: read, decoded and normalised ahead by threads, assembled by the caller.

A batch is made by several threads, each of which works on a few of its samples and writes them, normalised, to where
they belong in an array that is used again (see `ArrayRing`). Decoders, the resize and numpy release the interpreter's
lock. What else torch does happens in the caller's thread: its thread count and its random generator stay as the caller
set them, and a user's own transform has a generator that no other thread draws from; or such a transform has processes
of its own, one for each thread that decodes (see `SampleTransform`). Elementwise work is numpy's: torch would wake a
second thread for a batch of a few dozen kilobytes, which on busy cores takes milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.augmentations.augmentation import Augment, BatchAugment, PerSampleAugment
from mlscale.data.augmentations.device_augment import UnfinishedBatch, is_on_device, leave_unfinished
from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.images.array_ring import ArrayRing
from mlscale.data.images.decoded_cache import DecodedSamples
from mlscale.data.images.sample_transform import ChangedBatch, SampleTransform
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.data.shards.member_decoder import Array
from mlscale.data.workers.sample_executor import SampleExecutor
from mlscale.data.workers.worker_process import WorkerPool

_FLOAT = np.dtype(np.float32)
_MIN_CHUNK_SAMPLES = 8
"""Samples that a thread takes at a time, at least: handing work over costs as much as decoding a tiny image."""
_MIN_BATCHES_AHEAD = 2
"""Batches in work or waiting, at least; more where a batch does not keep every thread busy."""


class ImageStream:
    """Makes batches from decoded samples: (x - mean) / std by channel, after augmentation, which moves masks alike.

    Args:
        data: the split.
        workers: threads that decode; 0 decodes in the caller's thread.
        augment: a crop, while decoding; or applied to the whole batch before it is normalised; None for none.
        seed: of the augmentation.
        executor: where a user's own transform runs; None for the caller's thread.
    """

    def __init__(
        self,
        data: DecodedSamples,
        *,
        workers: int,
        augment: BatchAugment | None,
        seed: int,
        executor: SampleExecutor | None = None,
    ) -> None:
        self._data, self._workers, self._seed = data, workers, seed
        self._crop = augment if isinstance(augment, RandomCrop) else None
        self._augment = None if isinstance(augment, RandomCrop) else augment
        # What the device that trains does to samples, from their decoded pixels on.
        self._device_augment = augment if isinstance(augment, Augment | RandomCrop) and is_on_device(augment) else None
        self._transform = SampleTransform(augment, data) if isinstance(augment, PerSampleAugment) else None
        self._executor = executor
        self._keeps_pixels = self._augment is not None or self._device_augment is not None
        self._mean = np.array(data.shape.mean, np.float32)[:, None, None]
        self._std = np.array(data.shape.std, np.float32)[:, None, None]
        self._ring = ArrayRing(keep=max(_MIN_BATCHES_AHEAD, 2 * workers) + 4)

    def __call__(self, plans: Iterable[BatchPlan]) -> Iterator[Batch | BadSample]:
        """Yield a batch for each plan; in its place a `BadSample`, if one of its samples cannot be decoded."""
        if self._workers == 0:
            for plan in plans:
                yield self._take_batch(self._start_batch(plan, None, None))
            return
        pending: deque[_BatchWork] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="mlscale-decode")
        with nullcontext() if self._executor is None else self._executor.run_epoch() as workers:
            try:
                for plan in plans:
                    pending.append(self._start_batch(plan, pool, workers))
                    if len(pending) > self._count_batches_ahead(len(plan.samples)):
                        yield self._take_batch(pending.popleft())
                while pending:
                    yield self._take_batch(pending.popleft())
            finally:
                # A caller that stops early does not wait for batches that it won't take.
                pool.shutdown(wait=False, cancel_futures=True)

    def _count_batches_ahead(self, batch_size: int) -> int:
        return max(_MIN_BATCHES_AHEAD, -(-2 * self._workers * _MIN_CHUNK_SAMPLES // batch_size))

    def _start_batch(self, plan: BatchPlan, pool: ThreadPoolExecutor | None, workers: WorkerPool | None) -> _BatchWork:
        if pool is not None and workers is not None:
            return self._start_changed_batch(plan, pool, workers)
        if self._crop is None and (cached := self._data.get_cached_samples(plan.samples)) is not None:
            masks = None if self._data.masks is None else self._data.masks.get_cached_masks(plan.samples)
            if masks is not None or self._data.masks is None:
                # What is in memory is quicker to copy than to hand over.
                return _BatchWork(plan, cached if self._keeps_pixels else self._normalise_copy(cached), masks, ())
        shape, count = self._data.shape, len(plan.samples)
        # An augmentation takes samples as they are decoded; without one, threads write normalised values at once.
        dtype = shape.dtype if self._keeps_pixels else _FLOAT
        out = self._ring.take_array((count, shape.channels, shape.height, shape.width), dtype)
        masks = None if self._data.masks is None else np.empty((count, shape.height, shape.width), np.uint8)
        draws = None if self._crop is None else self._crop.draw_numbers(self._derive_seeds(plan))
        fill = partial(self._fill_rows, plan, out, masks, draws)
        if pool is None:
            return _BatchWork(plan, out, masks, [partial(fill, range(count))])
        # `wait_for_parts` waits for a part when the batch is taken, and raises its error then.
        parts = [pool.submit(fill, rows).result for rows in split_rows(count, self._workers)]
        return _BatchWork(plan, out, masks, parts)

    def _start_changed_batch(self, plan: BatchPlan, pool: ThreadPoolExecutor, workers: WorkerPool) -> _BatchWork:
        """Start a batch that threads decode and workers change."""
        assert self._transform is not None
        batch = ChangedBatch(
            self._transform.name, len(plan.samples), lambda shape: self._ring.take_array(shape, _FLOAT)
        )
        seeds = self._derive_seeds(plan)
        parts = [
            pool.submit(self._change_rows, plan.samples, seeds, workers, batch, rows).result
            for rows in split_rows(len(plan.samples), self._workers)
        ]
        return _BatchWork(plan, None, None, parts, batch)

    def _change_rows(
        self,
        samples: NDArray[np.int64],
        seeds: NDArray[np.uint64],
        workers: WorkerPool,
        batch: ChangedBatch,
        rows: range,
    ) -> None:
        assert self._transform is not None

        def read_row(at: int) -> Sequence[Array]:
            sample = int(samples[rows[at]])
            x = self._data.get_sample(sample)
            return [x] if self._data.masks is None else [x, self._data.masks.get_mask(sample)]

        part = slice(rows.start, rows.stop)
        self._transform.change_in_worker(
            workers,
            samples[part],
            seeds[part],
            read_row,
            lambda results: batch.write_rows(rows, results, self._normalise_into),
        )

    def _fill_rows(
        self, plan: BatchPlan, out: Array, masks: Array | None, draws: NDArray[np.float32] | None, rows: range
    ) -> None:
        """Decode some samples of a batch to their rows; normalise them, unless an augmentation comes first."""
        for row in rows:
            sample, drawn = int(plan.samples[row]), None if draws is None else draws[row]
            pixels = self._get_sample(sample, drawn)
            if self._keeps_pixels:
                out[row] = pixels
            else:
                self._normalise_into(pixels, out[row])
            if masks is not None:
                masks[row] = self._get_mask(sample, drawn)

    def _get_sample(self, sample: int, draws: NDArray[np.float32] | None) -> Array:
        if self._crop is None or draws is None:
            return self._data.get_sample(sample)
        pixels = self._data.get_sample(sample, partial(self._crop.choose_box, draws))
        # The device mirrors samples itself.
        is_mirrored = self._device_augment is None and self._crop.is_mirrored(draws)
        return pixels[..., ::-1] if is_mirrored else pixels

    def _get_mask(self, sample: int, draws: NDArray[np.float32] | None) -> Array:
        """Return the part of a mask that `_get_sample` takes of its image."""
        assert self._data.masks is not None
        if self._crop is None or draws is None:
            return self._data.masks.get_mask(sample)
        mask = self._data.masks.get_mask(sample, partial(self._crop.choose_box, draws))
        return mask[..., ::-1] if self._crop.is_mirrored(draws) else mask

    def _take_batch(self, work: _BatchWork) -> Batch | BadSample:
        try:
            work.wait_for_parts()
        except BadSample as error:
            return error
        if work.changed is not None:
            assert work.changed.x is not None
            return assemble_batch(self._data, work.plan, torch.from_numpy(work.changed.x), work.changed.masks)
        assert work.out is not None
        array, masks = work.out, work.masks
        if self._device_augment is not None:
            unfinished = UnfinishedBatch(self._device_augment, self._derive_seeds(work.plan), self._mean, self._std)
            return leave_unfinished(assemble_batch(self._data, work.plan, torch.from_numpy(array)), unfinished)
        if self._augment is not None:
            array, masks = self._augment_batch(self._augment, work.plan, array, masks)
            array = self._normalise_copy(array)
        return assemble_batch(self._data, work.plan, torch.from_numpy(array), masks)

    def _augment_batch(
        self, augment: BatchAugment, plan: BatchPlan, array: Array, masks: Array | None
    ) -> tuple[Array, Array | None]:
        seeds = self._derive_seeds(plan)
        if self._transform is not None:
            arrays = [array] if masks is None else [array, masks]
            x, *moved = self._transform.change_batch(plan.samples, seeds, arrays)
            return x, moved[0] if moved else None
        if masks is None:
            return augment(torch.from_numpy(array), seeds).numpy(), None
        assert isinstance(augment, Augment)  # crops are made while decoding
        x_with, with_it = augment.augment_with_masks(torch.from_numpy(array), torch.from_numpy(masks), seeds)
        return x_with.numpy(), with_it.numpy()

    def _derive_seeds(self, plan: BatchPlan) -> NDArray[np.uint64]:
        return derive_sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream="augment")

    def _normalise_copy(self, x: Array) -> NDArray[np.float32]:
        out = self._ring.take_array(x.shape, _FLOAT)
        self._normalise_into(x, out)
        return out

    def _normalise_into(self, x: Array, out: Array) -> None:
        """Write (x - mean) / std to `out`. Two steps: a fused one might round a batch's last values differently."""
        if x.dtype != out.dtype:  # A conversion and a subtraction in one go take longer.
            # Pixels come with their channels side by side, maybe mirrored: bytes are quicker to sort than floats.
            np.copyto(out, np.ascontiguousarray(x))
            x = out
        np.subtract(x, self._mean, out=out)
        np.divide(out, self._std, out=out)


def split_rows(count: int, workers: int) -> list[range]:
    """Return the parts of a batch that threads work on."""
    # About two parts for each thread, so that a thread with large images does not delay the batch much.
    chunk = max(_MIN_CHUNK_SAMPLES, -(-count // (2 * max(1, workers))))
    return [range(start, min(start + chunk, count)) for start in range(0, count, chunk)]


def assemble_batch(data: DecodedSamples, plan: BatchPlan, x: torch.Tensor, masks: Array | None = None) -> Batch:
    """Return a batch of finished samples.

    Args:
        data: the split, which has their labels and names.
        plan: of the batch.
        x: the samples.
        masks: what is learned, where each pixel has a class.
    """
    batch: Batch = {
        "x": x,
        "y": torch.from_numpy(_get_labels(data, plan) if masks is None else masks),
        "key": data.list_keys(plan.samples.tolist()),
    }
    if plan.weight is not None:
        batch["weight"] = torch.from_numpy(plan.weight)
    return batch


def _get_labels(data: DecodedSamples, plan: BatchPlan) -> Array:
    """Return class numbers, int64 (n,), or 0 and 1 for each class, float32 (n, classes)."""
    y = data.labels[plan.samples]
    return y if y.ndim == 1 else y.astype(np.float32)


@dataclass
class _BatchWork:
    """A batch in the making: the arrays of its samples, the parts that fill them, and what workers change."""

    plan: BatchPlan
    out: Array | None
    masks: Array | None
    parts: Sequence[Callable[[], None]]
    changed: ChangedBatch | None = None

    def wait_for_parts(self) -> None:
        """Wait for all parts; raise the error of the first sample that has one."""
        for part in self.parts:
            part()
