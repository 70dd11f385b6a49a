"""The base of all data: its facts, its loaders, and the state to resume from. Knows nothing of Lightning.

A source of data is a subclass: it opens streams, and says what they hold; order, resume, layout and policy are here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data.augmentations.augmentation import Augment, wrap_augment
from mlscale.data.augmentations.device_augment import choose_finish, finish_batch
from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.data_facts import DataFacts, Promises
from mlscale.data.data_job import Job, check_workers, count_local_ranks
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.order.bad_samples import (
    BadRecord,
    BadSample,
    FailingBatches,
    SkippedSamples,
    SkippingBatches,
    Stream,
    format_skipped_samples,
)
from mlscale.data.order.batch_plan import Batch, BatchLayout, BatchPlan
from mlscale.data.order.keyed_permutation import ORDER_VERSION
from mlscale.data.order.loader import (
    Batches,
    EvalLoader,
    Finish,
    Follow,
    LoaderProgress,
    TrainLoader,
    follow_nothing,
)
from mlscale.data.order.policy import Policy
from mlscale.data.order.restored_order import check_position_was_restored, check_restored_order
from mlscale.data.order.sample_order import (
    BalancedSampler,
    MixedSampler,
    SampleOrder,
    ShuffledSampler,
    WeightedSampler,
)
from mlscale.data.workers.sample_executor import ExecutorSet, check_executor
from mlscale.errors import MLScaleError
from mlscale.task_types.task_type import TargetColumn


class Backend:
    """Batches in an exact order, from whatever a subclass makes its streams of.

    The job has the number of ranks and of forward passes a step; without a job there is one of each.

    Args:
        policy: batches, order and augmentation; see `Policy`.
        workers: what decodes, per process; 'auto' is the subclass's choice.

    Attributes:
        trainer: the job; None where there is none yet.
        left_out: the bad samples that were left out, of all ranks, once a fit or an evaluation is over.
        counted: what a fit reports of its data when it is over, by the name of a metric.
    """

    promises: ClassVar[Promises] = Promises(order=True, resume=True, elastic=True)
    takes_windows: ClassVar[bool] = False
    """It can be mixed with windows of production, so that models are retrained on it."""
    trainer: Job | None = None

    def __init__(self, policy: Policy, *, workers: int | str) -> None:
        super().__init__()
        check_workers(workers)
        self.policy, self.workers = policy, workers
        if policy.windows and not self.takes_windows:
            raise self._build_no_windows_error()
        # The batch size is that of one process where a probe loads without a trainer.
        self.batch_size, self.seed, self.augment = policy.batch_size, policy.seed, wrap_augment(policy.augment)
        self.left_out: list[BadRecord] = []
        self.counted: dict[str, float] = {}
        self._skipped = SkippedSamples()
        self._chosen_sampling: SampleOrder | None = None
        self._progress = LoaderProgress()
        self._restored: Mapping[str, Any] | None = None
        self._executors = ExecutorSet()

    # For subclasses to override.

    def facts(self) -> DataFacts:
        """Return the facts of the data; needs no trainer.

        Raises:
            MLScaleError: the data is missing or not what it should be; all problems at once.
        """
        raise NotImplementedError

    def encoder(self) -> Encoder:
        """Return the encoder from raw samples to what the model takes; by default they are tensors already."""
        facts = self.facts()
        return TensorEncoder.from_shape(facts.sample, facts.dtype)

    def describe_targets(self) -> tuple[TargetColumn, ...]:
        """Return the numbers that are predicted, by column, with their units; empty where they have no names."""
        return ()

    def read_raw_samples(self, split: str, rows: NDArray[np.int64]) -> list[Any] | None:
        """Return samples as a client sends them, by the kind of `encoder`; None where they are tensors already.

        Args:
            split: 'train', 'val' or 'test'.
            rows: their numbers in it, (n,).
        """
        return None

    def write_window(self, folder: Path, samples: Sequence[Any], labels: Sequence[Any]) -> None:
        """Write samples of production in the format of this data, as a part of a window in `data.windows`.

        Args:
            folder: the new folder of the part.
            samples: as a client sends them, by the kind of `encoder`.
            labels: of each, in the form that labels have in events; None where samples have none.
        """
        raise self._build_no_windows_error()

    def count_window_rows(self, samples: Sequence[Any]) -> int:
        """Return the number of training samples that samples of production make."""
        return len(samples)

    def list_splits(self) -> list[str]:
        """Return the names of the splits: 'train', 'val', and 'test' where there is one."""
        return ["train", "val"]

    def read_labels(self, split: str) -> NDArray[Any] | None:
        """Return what is predicted of each sample of a split, (n,) or (n, …); None where it follows from the sample."""
        return None

    def list_keys(self, split: str, rows: NDArray[np.int64]) -> list[str] | None:
        """Return the names of samples; None where they have none."""
        return None

    def _open_stream(self, split: str) -> tuple[Stream, int, str]:
        """Return the stream of a split ('train', 'val' or 'test'), its number of samples, and its version."""
        raise NotImplementedError

    def _read_class_numbers(self) -> NDArray[np.int64]:
        """Return the class of each training sample, int64 (n,)."""
        raise NotImplementedError

    def _get_label_digests(self) -> Mapping[str, str]:
        """Return the digest of the labels of each split that has any."""
        return {}

    def _read_weights(self, named: str) -> NDArray[np.float64]:
        """Return the weight of each training sample, float64 (n,), as `data.weights` names them."""
        raise NotImplementedError

    def _get_source_mix(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return sizes and shares of the sources that training samples are mixed from; None if nothing is mixed."""
        return None

    def _get_follow(self, split: str) -> Follow:
        """Return what prepares for the order of a split's samples; by default nothing has to be."""
        return follow_nothing

    def _has_python_code(self) -> bool:
        """Return True if code of a user's own works on samples, which `data.executor` may give processes."""
        return False

    # The names are those of Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Read the indexes; a fit starts at the first sample unless a checkpoint is loaded after this."""
        self.facts()
        self._skipped = SkippedSamples()
        if stage == "fit":
            self._progress, self._restored = LoaderProgress(), None

    def teardown(self, stage: str) -> None:
        """End the workers; report what was left out and what was tolerated, over all ranks."""
        self._executors.close()
        self._report_tolerated()
        if not self.policy.skip:
            return
        # A collective operation: every rank calls it, before rank zero alone prints.
        self.left_out, places = self._skipped.gather_over_ranks()
        self.counted = {"data/bad_samples": len(self.left_out)}
        if stage == "fit":
            self.counted["data/bad_places"] = places
        if self.trainer is None or self.trainer.is_global_zero:
            print(format_skipped_samples(self.left_out, places), file=sys.stderr, flush=True)

    def train_dataloader(self) -> TrainLoader:
        """Return the batches of this rank, from the position that the run has reached."""
        check_executor(self.policy.executor, has_code=self._has_python_code(), workers=self._resolve_workers())
        stream, _, version = self._open_stream("train")
        layout, sampling = self._build_layout(), self._get_sampling()
        # With padding even a single sample fills a batch.
        layout.check_batch_size(None if self.policy.pad else sampling.length)
        self._check_restored(version, layout)
        limit, fixed = self._resolve_batch_limit(
            layout.count_steps(sampling.length, pad=self.policy.pad) * layout.accumulate
        )
        return TrainLoader(
            self._wrap_stream(stream, "train"),
            sampling,
            layout,
            progress=self._progress,
            pad=self.policy.pad,
            finish=choose_finish(self.augment, self._bind_mixing(layout), at_once=not self._has_device),
            limit=limit,
            fixed=fixed,
            follow=self._get_follow("train"),
        )

    def val_dataloader(self) -> EvalLoader:
        """Return a loader of each validation sample, once over all ranks."""
        return self._build_eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        """Return a loader of each test sample, once over all ranks."""
        return self._build_eval_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the order, and what the order depends on."""
        order = self._describe_order(self._open_stream("train")[2])
        val_version = self._open_stream("val")[2]
        labels = dict(self._get_label_digests())
        return {**self._progress.state_dict(), **order, "val_version": val_version, "labels": labels}

    def count_samples(self, split: str) -> int:
        """Return the number of samples of a split, bad ones included."""
        return self._open_stream(split)[1]

    def iterate_stored_samples(self, split: str) -> Iterator[Batch | BadSample]:
        """Yield each sample of a split in the order of its source, a batch of one; its error where it can't be read.

        Training samples are augmented, as in the first epoch, unless the policy has no augmentation.
        """
        stream, samples, _ = self._open_stream(split)
        numbers = np.arange(samples, dtype=np.int64)
        plans = (BatchPlan(0, numbers[at : at + 1], numbers[at : at + 1]) for at in range(samples))
        return (item if isinstance(item, BadSample) else finish_batch(item) for item in stream(plans))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a position. Training checks that it fits this data; evaluation may use other data."""
        self._restored = state_dict
        self._progress = LoaderProgress(int(state_dict["epoch"]), int(state_dict["position"]))

    # Not part of Lightning's interface.

    def _build_no_windows_error(self) -> MLScaleError:
        return MLScaleError(
            f"{type(self).__name__} can't be mixed with windows of production",
            where="data",
            why="its samples have no format to write others in",
            fix="data=<table|text_table|text_files|imagefolder|webdataset>, the data as files (docs/data.md), to train "
            "a model on",
        )

    def _report_tolerated(self) -> None:
        """Report samples that were decoded although a decoder warned; where data is not decoded there are none."""

    def runs_python_here(self) -> bool:
        """Return True if a user's own Python code works on samples in this process."""
        return self._has_python_code() and self.policy.executor != "process"

    def loading_workers(self) -> int:
        """Return the number of threads or processes that load, per rank, once `auto` is resolved."""
        return self._resolve_workers()

    def _resolve_workers(self) -> int:
        """Return `workers`; 'auto' is this process's cores, shared among the ranks of this machine, four at most."""
        if isinstance(self.workers, int):
            return self.workers
        # Not os.cpu_count(): a container or a scheduler may grant fewer cores than the machine has.
        return max(1, min(4, len(os.sched_getaffinity(0)) // count_local_ranks(self.trainer)))

    def _get_sampling(self) -> SampleOrder:
        """Return the order of training samples."""
        if self._chosen_sampling is None:
            _, samples, version = self._open_stream("train")
            self._chosen_sampling = self._choose_sampling(samples, version)
        return self._chosen_sampling

    def _choose_sampling(self, samples: int, version: str) -> SampleOrder:
        length, seed = self.policy.epoch_samples or samples, self.seed
        if (mix := self._get_source_mix()) is not None:
            return MixedSampler(*mix, length, seed=seed, version=version)
        if self.policy.sampling == "balanced":
            return BalancedSampler(self._read_class_numbers(), length, seed=seed, version=version)
        if self.policy.weights is not None:
            return WeightedSampler(self._read_weights(self.policy.weights), length, seed=seed, version=version)
        # An epoch of another length: a single source, whose passes over the data continue from epoch to epoch.
        if length != samples:
            return MixedSampler(np.array([samples]), np.array([1]), length, seed=seed, version=version)
        return ShuffledSampler(samples, seed=seed, version=version)

    def _wrap_stream(self, stream: Stream, split: str) -> Batches:
        return SkippingBatches(stream, split, self._skipped) if self.policy.skip else FailingBatches(stream)

    @property
    def _has_device(self) -> bool:
        """True if what takes the batches finishes them on its device, by `finish_batch`."""
        return False

    def _bind_mixing(self, layout: BatchLayout) -> Finish | None:
        mixing = self.augment.mixing if isinstance(self.augment, Augment | RandomCrop) else None
        if mixing is None:
            return None
        mixing.check_blocks(layout)
        if (classes := self.facts().num_classes) is None:
            raise MLScaleError("this data has no classes to mix", where="augment", fix="augment=none")
        return partial(mixing, seed=self.seed, classes=classes)

    def _describe_order(self, version: str) -> dict[str, Any]:
        """Return everything that the order of training samples depends on."""
        tokenizer = self.facts().tokenizer
        return {
            # First: another tokenizer makes another version, and names the cause.
            **({} if tokenizer is None else {"tokenizer": tokenizer}),
            "seed": self.seed,
            "version": version,
            "policy": self._get_sampling().policy,
            "order_version": ORDER_VERSION,
        }

    def _build_eval_loader(self, split: str) -> EvalLoader:
        stream, samples, _ = self._open_stream(split)
        layout = self._build_layout()
        layout.check_batch_size()
        return EvalLoader(self._wrap_stream(stream, split), samples, layout, self._get_follow(split))

    def _build_layout(self) -> BatchLayout:
        trainer = self.trainer
        if trainer is None:
            return BatchLayout(self.batch_size)
        return BatchLayout(self.batch_size, trainer.world_size, trainer.global_rank, trainer.accumulate_grad_batches)

    def _resolve_batch_limit(self, batches: int) -> tuple[int | None, bool]:
        """Return the trainer's limit of batches an epoch, and True if every epoch repeats the first."""
        if self.trainer is None:
            return None, False
        # Lightning's rule: a float is a fraction of an epoch, an int a number of batches.
        limit = self.trainer.limit_train_batches
        is_fixed = getattr(self.trainer, "overfit_batches", 0) > 0
        return int(limit * batches) if isinstance(limit, float) else limit, is_fixed

    def _check_restored(self, version: str, layout: BatchLayout) -> None:
        if self._restored is None:
            check_position_was_restored(self.trainer, self)
            return
        check_restored_order(
            self._restored,
            self._describe_order(version),
            self._get_label_digests(),
            self._open_stream("val")[2],
            self._progress.position,
            layout,
        )
