"""Image data in a user's tar shards, decoded and augmented by DALI while training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import ClassVar, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlscale.data.augmentations.device_augment import refuse_on_device
from mlscale.data.dali.batch_inputs import BatchInputs, InputReader, SampleInput
from mlscale.data.dali.operations import ImageChanges
from mlscale.data.dali.pipeline import QUEUE_DEPTH, PipelineSettings
from mlscale.data.dali.pipeline_runner import PipelineFailedError, PipelineRunner
from mlscale.data.dali.recorded_transforms import AugmentationPlan
from mlscale.data.decoding.resample import ChooseBox
from mlscale.data.images.decoded_cache import DecodedSamples
from mlscale.data.images.image_stream import assemble_batch, split_rows
from mlscale.data.images.sharded_images import check_word
from mlscale.data.images.webdataset import TarArguments, TarBackend
from mlscale.data.order.bad_samples import BadSample, Stream
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.data.shards.shard_paths import Spec
from mlscale.errors import MLScaleError

_DEVICES = ("cpu", "gpu")
_LABELS = ("one", "several")


class DaliBackend(TarBackend):
    """Labelled images in tar shards, as `TarBackend` reads them; training samples are decoded and augmented by DALI.

    Order, seeds, resume, labels and normalisation are those of `TarBackend`, and each sample has the crop, the mirror
    image and the other random numbers that it has there; the pixels differ by how DALI resizes. Evaluation decodes
    as `predict` and `serve` do, without DALI, so that a metric is that of the model in production.

    Args:
        train: see `TarBackend`.
        val: see `TarBackend`.
        test: see `TarBackend`.
        device: where JPEGs are decoded and augmented: 'cpu', or 'gpu' for the CUDA device that trains.
        arguments: see `TarBackend`; `labels` is 'one' or 'several', `workers` counts threads of DALI, too, and
            `augment` is an augmentation of mlscale, or a transform of torchvision whose operations DALI has, too.
    """

    decoder: ClassVar[str] = "dali"

    def __init__(
        self,
        train: Spec | Mapping[str, Spec],
        val: Spec,
        test: Spec | None = None,
        device: str = "cpu",
        **arguments: Unpack[TarArguments],
    ) -> None:
        # Before anything is read: masks are not moved by DALI, and pixels of both must stay together.
        check_word("labels", arguments.get("labels", "one"), _LABELS)
        check_word("device", device, _DEVICES)
        super().__init__(train, val, test, **arguments)
        refuse_on_device(
            self.augment, "DALI augments what it decodes", "augment.device=loader; data.device=gpu does both on the GPU"
        )
        self.device, self._decodes_strictly = device, False

    def _open_stream(self, split: str) -> tuple[Stream, int, str]:
        # What is evaluated is decoded as in production.
        if split != "train" or self._decodes_strictly:
            return super()._open_stream(split)
        data = self.get_decoded_split(split)
        return self._build_dali_stream(data), len(data), data.source.version

    def iterate_stored_samples(self, split: str) -> Iterator[Batch | BadSample]:
        """Yield each sample of a split; see `Backend.iterate_stored_samples`.

        Without augmentation by mlscale's strict decoder, as `mlscale data verify` needs it: DALI's fills up what a
        corrupt JPEG lacks.
        """
        self._decodes_strictly = self.augment is None
        try:
            yield from super().iterate_stored_samples(split)
        finally:
            self._decodes_strictly = False

    def _build_dali_stream(self, data: DecodedSamples) -> DaliStream:
        shape, workers = data.shape, self._resolve_workers()
        if shape.dtype != np.uint8 or shape.channels not in (1, 3):
            raise MLScaleError(
                f"the samples are {shape.dtype} of {shape.channels} channels",
                where="data=dali",
                why="DALI's pipeline takes images: uint8, of 1 or 3 channels",
                fix="data=webdataset, which reads the same shards",
            )
        size = shape.channels, shape.height, shape.width
        # Random numbers are drawn outside of DALI, so that order and resume do not depend on it.
        reader = InputReader(
            data,
            AugmentationPlan(self.augment, size),
            max_pixels=self.max_pixels,
            is_resized=self.image_size is not None,
        )
        # DALI has threads of its own, which decode; those that read files mostly wait.
        settings = PipelineSettings(
            threads=max(1, workers), device=self.device, size=size, mean=shape.mean, std=shape.std
        )
        return DaliStream(data, reader, settings, workers=workers, seed=self.seed)


Result = TypeVar("Result")

_READ_AHEAD = 2
"""Batches whose files are read while DALI's queue is full."""


@dataclass
class _FedBatch:
    """A batch in the making: its files are read, then DALI is fed.

    Attributes:
        plan: of it.
        parts: what chooses the part of each image.
        changes: of each image.
        reading: returns the inputs of some of its samples, once they are read.
        inputs: what DALI is fed; None until all are read.
        error: the first bad sample.
        runner: what computes it; None until it was fed.
    """

    plan: BatchPlan
    parts: Sequence[ChooseBox | None]
    changes: Sequence[ImageChanges]
    reading: Sequence[Callable[[], list[SampleInput]]]
    inputs: BatchInputs | None = None
    error: BadSample | None = None
    runner: PipelineRunner | None = None

    def wait_for_inputs(self) -> BatchInputs | None:
        """Return what DALI is fed, once all files are read; None if a sample is bad."""
        if self.inputs is None and self.error is None:
            try:
                samples = [sample for part in self.reading for sample in part()]
                self.inputs = BatchInputs(samples, self.changes)
            except BadSample as error:
                self.error = error
        return self.inputs


class DaliStream:
    """Makes batches of a training split by DALI.

    Args:
        data: the split.
        reader: reads its samples for DALI.
        settings: of the pipeline, apart from what follows from the batches.
        workers: threads that read files; 0 reads in the caller's thread.
        seed: of the augmentation.
    """

    def __init__(
        self, data: DecodedSamples, reader: InputReader, settings: PipelineSettings, *, workers: int, seed: int
    ) -> None:
        self._data, self._reader, self._settings = data, reader, settings
        self._workers, self._seed = workers, seed
        # What an epoch leaves behind, the next one uses; more than one where a bad batch is made again meanwhile.
        self._idle: list[PipelineRunner] = []

    def __call__(self, plans: Iterable[BatchPlan]) -> Iterator[Batch | BadSample]:
        """Yield a batch for each plan; in its place a `BadSample`, if one of its samples cannot be decoded."""
        queue: deque[_FedBatch] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="mlscale-read") if self._workers else None
        run = _PipelineRun(self._settings, self._reader, self._idle.pop() if self._idle else None)
        try:
            for plan in plans:
                queue.append(self._start_reading(plan, pool))
                if len(queue) > _READ_AHEAD + QUEUE_DEPTH:
                    yield self._take_batch(queue, run)
            while queue:
                yield self._take_batch(queue, run)
            if run.runner is not None:
                self._idle.append(run.runner)
        finally:
            # A caller that stops early does not wait for batches that it won't take; what computes them is dropped.
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def _start_reading(self, plan: BatchPlan, pool: ThreadPoolExecutor | None) -> _FedBatch:
        seeds = derive_sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream="augment")
        parts = self._reader.choose_parts(seeds)
        read = partial(self._read_rows, plan.samples, parts)
        rows = split_rows(len(plan.samples), self._workers)
        reading = [pool.submit(read, part).result if pool is not None else partial(read, part) for part in rows]
        # In the caller's thread: a transform of torchvision draws from the global generators.
        return _FedBatch(plan, parts, self._reader.choose_changes(seeds), reading)

    def _read_rows(
        self, samples: NDArray[np.int64], parts: Sequence[ChooseBox | None], rows: range
    ) -> list[SampleInput]:
        return [self._reader.read_stored(int(samples[row]), parts[row]) for row in rows]

    def _take_batch(self, queue: deque[_FedBatch], run: _PipelineRun) -> Batch | BadSample:
        run.feed_first(queue)
        result = run.take_first(queue)
        work = queue.popleft()
        # DALI computes the next batch while the caller trains.
        run.feed_first(queue)
        if isinstance(result, BadSample):
            return result
        return assemble_batch(self._data, work.plan, result)


class _PipelineRun:
    """The pipelines of one pass over some plans.

    Attributes:
        runner: what new batches are fed to; None where it was never needed, or has failed.
    """

    def __init__(self, settings: PipelineSettings, reader: InputReader, runner: PipelineRunner | None) -> None:
        self._settings, self._reader, self.runner = settings, reader, runner

    def feed_first(self, queue: Iterable[_FedBatch]) -> None:
        """Feed the first batches of a queue, as many as DALI works on at a time."""
        first = list(islice(queue, QUEUE_DEPTH))
        self._try_twice(first, lambda: self._feed_unfed(first))

    def take_first(self, queue: Iterable[_FedBatch]) -> Tensor | BadSample:
        """Return the samples of the first batch, or its bad one."""
        first = list(islice(queue, QUEUE_DEPTH))

        def take_fed() -> Tensor | BadSample:
            # Nothing is left to feed, unless a failed pipeline has lost it.
            self._feed_unfed(first)
            return self._take(first[0])

        return self._try_twice(first, take_fed)

    def _try_twice(self, works: Sequence[_FedBatch], compute: Callable[[], Result]) -> Result:
        """Return the result of `compute`; where DALI fails, once more without the images that it refuses.

        Raises:
            MLScaleError: it fails all the same.
        """
        try:
            return compute()
        except PipelineFailedError as failure:
            if not self._replace_refused(works):
                raise _create_failure_error(failure) from failure
        try:
            return compute()
        except PipelineFailedError as failure:
            raise _create_failure_error(failure) from failure

    def _take(self, work: _FedBatch) -> Tensor | BadSample:
        if work.error is not None:
            return work.error
        assert work.runner is not None
        return work.runner.take()

    def _feed_unfed(self, works: Iterable[_FedBatch]) -> None:
        for work in works:
            inputs = work.wait_for_inputs()
            if inputs is not None and work.runner is None:
                work.runner = self._require_runner(inputs)
                work.runner.feed(inputs)

    def _require_runner(self, inputs: BatchInputs) -> PipelineRunner:
        """Return what computes such a batch: the pipeline of the batches before it, or a larger one."""
        if self.runner is None or not self.runner.settings.can_compute(inputs):
            # A pipeline can't be changed; the one before still computes what it was fed.
            known = self._settings if self.runner is None else self.runner.settings
            self.runner = PipelineRunner(known.extend(inputs))
        return self.runner

    def _replace_refused(self, works: Sequence[_FedBatch]) -> bool:
        """Replace the images that DALI refuses, by those that mlscale decodes; where it can't, they are bad samples.

        A failed pipeline does not name its sample and loses all its batches, so each sample is tried alone. This is
        done every time and nothing is remembered: a resumed run must not depend on what its process has seen.

        Returns:
            True if an image was refused.
        """
        self.runner = None
        has_refused = False
        for work in works:
            work.runner = None
            # A batch with a bad sample was never fed.
            for row in self._list_refused_rows(work.inputs) if work.inputs is not None else ():
                has_refused = True
                self._replace_sample(work, row)
        return has_refused

    def _list_refused_rows(self, inputs: BatchInputs) -> list[int]:
        rows, runner = [], None
        for row in range(len(inputs.samples)):
            # With its changes, since an operation may fail as well as the decoder.
            alone = BatchInputs(inputs.samples[row : row + 1], inputs.changes[row : row + 1])
            try:
                runner = runner or PipelineRunner(self._settings.extend(inputs))
                runner.feed(alone)
                runner.take()
            except PipelineFailedError:
                rows.append(row)
                # A pipeline that has failed once can't be used again.
                runner = None
        return rows

    def _replace_sample(self, work: _FedBatch, row: int) -> None:
        if work.inputs is None:
            return
        try:
            pixels = self._reader.read_pixels(int(work.plan.samples[row]), work.parts[row])
        except BadSample as error:
            # The first one of a batch is reported; DALI is fed no batch with it.
            work.error, work.inputs = work.error or error, None
            return
        samples = [*work.inputs.samples]
        samples[row] = pixels
        work.inputs = replace(work.inputs, samples=samples)


def _create_failure_error(failure: PipelineFailedError) -> MLScaleError:
    # DALI's text: where the operator was defined, then 'encountered:', then its reason.
    reason = str(failure).rpartition("encountered:")[2].strip()
    return MLScaleError(
        "DALI could not compute a batch",
        where="data=dali",
        why=reason.splitlines()[0] if reason else "it gives no reason",
        fix="data=webdataset, which reads the same shards without it",
    )
