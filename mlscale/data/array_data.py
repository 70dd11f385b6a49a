"""Data that is in memory as arrays: text and tables, in mlscale's order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.augmentations.augmentation import Augment, BatchAugment
from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.class_labels import compute_label_digest, join_label_digests
from mlscale.data.data_facts import DataFacts
from mlscale.data.data_module import OrderedData
from mlscale.data.inspection.shared_rows import find_shared_rows, format_shared_rows
from mlscale.data.order import sample_weights as weights
from mlscale.data.order.bad_samples import BadSample, Stream
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.data.order.policy import Policy
from mlscale.data.shards.system_files import report_once
from mlscale.data.split_rows import SplitRows, compute_split_version
from mlscale.data.windows.joined_rows import JoinedRows, collect_raw_rows, count_left_out, join_row_windows
from mlscale.data.windows.window_folder import compute_window_mix, find_class_numbers
from mlscale.errors import MLScaleError


class MemoryData(OrderedData):
    """A data module whose splits a subclass reads into memory.

    There are no workers: to take rows out of an array costs less than to hand the work over.

    Args:
        policy: batches, order and augmentation.

    Raises:
        MLScaleError: an augmentation of images.
    """

    def __init__(self, policy: Policy) -> None:
        if isinstance(policy.augment, Augment | RandomCrop):
            raise MLScaleError(
                "this augmentation is one of images, and the data is none",
                where="augment",
                fix="augment=none",
            )
        super().__init__(policy, workers=0)
        self.split_leaks: list[str] = []
        # Validation rows were held out by a hash that a subclass can change to one for each class.
        self.may_stratify = False
        self._facts: DataFacts | None = None
        self._splits: dict[str, SplitRows] = {}
        self._digests_of_labels: dict[str, str] = {}

    def facts(self) -> DataFacts:
        """Return the facts of the data, which is read at the first call.

        Raises:
            MLScaleError: data is missing, empty, corrupt or inconsistent; all problems at once.
        """
        if self._facts is None:
            splits, facts = self._read_splits()
            if self.policy.windows:
                splits, facts = self._join_windows(splits, facts)
            self._splits = dict(splits)
            labels = {split: rows.labels for split, rows in splits.items()}
            self._digests_of_labels = {
                split: compute_label_digest(split_labels, facts.class_names)
                for split, split_labels in labels.items()
                if split_labels is not None
            }
            self._facts = replace(facts, label_digest=join_label_digests(self._digests_of_labels))
        return self._facts

    def setup(self, stage: str) -> None:
        """Read the data; a fit reports what it gives away, such as validation samples that are training samples."""
        super().setup(stage)
        # Windows of production may repeat what was trained on, and a gate compares models on them.
        if stage == "fit" and not self.policy.windows and (self.trainer is None or self.trainer.is_global_zero):
            for line in self.describe_leaks():
                report_once(line)

    def describe_leaks(self) -> list[str]:
        """Return a line for each way in which training data gives away validation data."""
        shared = find_shared_rows(self.get_rows("train"), self.get_rows("val"))
        return [*self.split_leaks, *([] if shared is None else [format_shared_rows(shared)])]

    def list_splits(self) -> list[str]:
        """Return the names of the splits: 'train', 'val', and 'test' where there is one."""
        self.facts()
        return list(self._splits)

    def read_labels(self, split: str) -> NDArray[Any] | None:
        """Return class numbers, int64 (n,), or numbers to predict, (n, …); None for language models."""
        return self.get_rows(split).labels

    def get_rows(self, split: str) -> SplitRows:
        """Return the samples of a split ('train', 'val' or 'test').

        Raises:
            MLScaleError: this data has no such split.
        """
        self.facts()
        if split not in self._splits:
            raise MLScaleError(f"this data has no {split} split", where=f"data.{split}", fix="split=val")
        return self._splits[split]

    def list_keys(self, split: str, rows: NDArray[np.int64]) -> list[str]:
        """Return the names of samples."""
        split_rows = self.get_rows(split)
        return [split_rows.get_key(row) for row in rows.tolist()]

    def read_raw_samples(self, split: str, rows: NDArray[np.int64]) -> list[Any] | None:
        """Return samples as a client sends them; None where they are tensors already."""
        return collect_raw_rows(self.get_rows(split), rows, self.read_raw_rows)

    def read_raw_rows(self, rows: SplitRows, numbers: NDArray[np.int64]) -> list[Any] | None:
        """Return the raw samples of some rows of a split that `_read_splits` or `_read_window` has returned."""
        return None

    def _read_window(self, folder: Path, facts: DataFacts) -> SplitRows:
        """Return the samples of a part of a window, encoded as the training split is.

        Args:
            folder: as `write_window` has written it.
            facts: of the data.
        """
        raise self._build_no_windows_error()

    def _join_windows(
        self, splits: Mapping[str, SplitRows], facts: DataFacts
    ) -> tuple[Mapping[str, SplitRows], DataFacts]:
        relabelled = find_class_numbers(self.policy.relabelled, facts.class_names, facts.num_classes or 0)
        joined = join_row_windows(self.policy, splits, lambda folder: self._read_window(folder, facts), relabelled)
        counts = facts.class_counts
        labels = joined["train"].labels
        if counts and labels is not None and labels.ndim == 1:
            counts = tuple(np.bincount(labels, minlength=len(counts)).tolist())
        return joined, replace(
            facts,
            train_samples=len(joined["train"]),
            val_samples=len(joined["val"]),
            version=compute_split_version(joined),
            class_counts=counts,
        )

    def _get_source_mix(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        if not self.policy.windows:
            return None
        train = self.get_rows("train")
        assert isinstance(train, JoinedRows)
        newest = len(list(train.parts.values())[-1])
        return compute_window_mix(self.policy, len(train) - newest, newest, count_left_out(train))

    def _read_splits(self) -> tuple[Mapping[str, SplitRows], DataFacts]:
        """Return the splits, train and val at least, and the facts of the data."""
        raise NotImplementedError

    def _read_weights(self, named: str) -> NDArray[np.float64]:
        train = self.get_rows("train")
        return weights.read_weights_file(named, [train.get_key(sample) for sample in range(len(train))])

    def _read_class_numbers(self) -> NDArray[np.int64]:
        """Return the class numbers of the training samples, int64 (n,).

        Raises:
            MLScaleError: these samples have no classes.
        """
        train = self.get_rows("train")
        if self.facts().num_classes is None:
            raise MLScaleError(
                "samples without classes can't be drawn by class", where="data.sampling", fix="data.sampling=shuffle"
            )
        return train.take_samples(np.arange(len(train), dtype=np.int64))[1].astype(np.int64)

    def _get_label_digests(self) -> Mapping[str, str]:
        self.facts()
        return self._digests_of_labels

    def _open_stream(self, split: str) -> tuple[Stream, int, str]:
        rows = self.get_rows(split)
        augment = self.augment if split == "train" else None
        return MemoryStream(rows, augment=augment, seed=self.seed), len(rows), rows.version


class MemoryStream:
    """Makes batches from rows in memory, in the caller's thread."""

    def __init__(self, rows: SplitRows, *, augment: BatchAugment | None, seed: int) -> None:
        self._rows, self._augment, self._seed = rows, augment, seed

    def __call__(self, plans: Iterable[BatchPlan]) -> Iterator[Batch | BadSample]:
        """Yield a batch for each plan; in its place a `BadSample`, if one of its samples cannot be used."""
        for plan in plans:
            yield self._find_bad_sample(plan) or self._try_batch(plan)

    def _try_batch(self, plan: BatchPlan) -> Batch | BadSample:
        # Bad rows in memory are known since `facts` read them; of mapped files they show when they are read.
        try:
            return self._build_batch(plan)
        except BadSample as error:
            return error

    def _find_bad_sample(self, plan: BatchPlan) -> BadSample | None:
        bad = self._rows.bad
        for sample in plan.samples.tolist() if bad else ():
            if sample in bad:
                return build_bad_sample(self._rows, sample)
        return None

    def _build_batch(self, plan: BatchPlan) -> Batch:
        # from_numpy shares memory: `take_samples` returns new arrays, so an augmentation may write to x.
        x, y = (torch.from_numpy(values) for values in self._rows.take_samples(plan.samples))
        if self._augment is not None:
            # By position and not by sample: a sample that is drawn twice is changed in two ways.
            seeds = derive_sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream="augment")
            x = self._augment(x, seeds)
        batch: Batch = {"x": x, "y": y, "key": [self._rows.get_key(sample) for sample in plan.samples.tolist()]}
        if plan.weight is not None:
            batch["weight"] = torch.from_numpy(plan.weight)
        return batch


def build_bad_sample(rows: SplitRows, sample: int) -> BadSample:
    """Return the error of a sample that cannot be used."""
    return BadSample(sample, rows.get_key(sample), "cannot be used", why=rows.bad[sample])


def refuse_bad_samples(rows: SplitRows, policy: Policy, *, where: str) -> None:
    """Raise if a sample is bad and may not be skipped, or if all are bad.

    Raises:
        BadSample: the first that is bad, where bad samples end a run.
        MLScaleError: all are.
    """
    if not rows.bad:
        return
    # The lowest number, so that every run and rank reports the same sample.
    first = build_bad_sample(rows, min(rows.bad))
    if not policy.skip:
        first.where = where
        first.why += f"; {len(rows.bad)} of {len(rows)} samples are like this" if len(rows.bad) > 1 else ""
        raise first
    if len(rows.bad) == len(rows):
        raise MLScaleError(
            f"none of the {len(rows)} samples can be used",
            where=where,
            why=f"the first: {first.key} {first.what}, {first.why}",
            fix="write the data again; if it is complete, look at the columns that are named",
        )
