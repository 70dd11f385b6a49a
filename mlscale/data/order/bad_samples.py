"""Samples that cannot be read: an error, or replaced in place by another sample of their global batch.

A replacement has weight 0, so what a step learns from is the global batch without its bad samples, whatever the layout.
The replacement depends on the data and the order alone: it is the next readable sample of the global batch, which every
rank can compute, and so can a resumed run.

A list of them is a file with a JSON document a line, with `split`, `sample` and `why`.
"""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from mlscale.atomic_files import explain_os_error, make_folders, write_text
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.errors import MLScaleError

_MAX_NAMES = 5
"""Bad samples that are named at the end of a run; the others are only counted."""
_MAX_TOLERATED_NAMES = 3
"""Samples that are named, of those that were decoded despite a warning."""


class BadSample(MLScaleError):  # noqa: N818 - a sample, in the place of its batch
    """A sample that cannot be read.

    Args:
        sample: its number in its split.
        key: its name.
        what: what cannot be done with it, such as 'cannot be decoded'.
        where: which part of it.
        why: the decoder's message.
    """

    def __init__(
        self, sample: int, key: str, what: str = "cannot be decoded", *, where: str = "", why: str = ""
    ) -> None:
        fix = "data.on_bad_sample=skip, which replaces it and continues; or write this sample again"
        # PIL names the file it was given, which is bytes in memory here, at an address that changes.
        why = re.sub(r" <_io\.BytesIO object at \w+>", "", why)
        super().__init__(f"the sample {key} {what}", where=where, why=why, fix=fix)
        self.sample, self.key = sample, key


class BadRecord(NamedTuple):
    """What a list keeps of a bad sample.

    Args:
        split: 'train', 'val' or 'test'.
        key: its name.
        why: the decoder's message, and which part of it.
    """

    split: str
    key: str
    why: str

    @classmethod
    def from_error(cls, split: str, error: BadSample) -> BadRecord:
        """Return the record of an error."""
        return cls(split, error.key, "; ".join(part for part in (error.why, error.where) if part))


class Stream(Protocol):
    """Makes batches, one for each plan, in order. It may work ahead; it must not look back.

    Where a sample cannot be read the error is handed out in the batch's place, and the next batch comes all the same.
    """

    def __call__(self, plans: Iterable[BatchPlan]) -> Iterator[Batch | BadSample]: ...


class FailingBatches:
    """`data.on_bad_sample=fail`: the first bad sample ends the run."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __call__(
        self, plans: Iterable[BatchPlan], list_global_batch: Callable[[BatchPlan], NDArray[np.int64]]
    ) -> Iterator[Batch]:
        """Yield the stream's batches.

        Raises:
            BadSample: a sample cannot be read.
        """
        for batch in self._stream(plans):
            if isinstance(batch, BadSample):
                raise batch
            yield batch


class SkippedSamples:
    """The samples that this process has left out.

    Attributes:
        errors: the bad samples by (split, number), with the error of each.
        replaced_count: how many places of training batches one of them had.
    """

    def __init__(self) -> None:
        self.errors: dict[tuple[str, int], BadSample] = {}
        self.replaced_count = 0

    def record_bad_sample(self, split: str, error: BadSample) -> None:
        """Remember a bad sample; the first one is reported on stderr at once."""
        self.errors[split, error.sample] = error
        if len(self.errors) == 1:
            print(
                f"bad data  {error.what}: {error.why}; it is replaced, and so are others", file=sys.stderr, flush=True
            )

    def gather_over_ranks(self) -> tuple[list[BadRecord], int]:
        """Return all bad samples, sorted, and their number of training positions, over all ranks."""
        own = {BadRecord.from_error(split, error) for (split, _), error in self.errors.items()}
        every = _gather_objects((own, self.replaced_count))
        # Two ranks may meet the same sample, so samples are merged; positions are each rank's own, so they add up.
        return sorted(set().union(*(records for records, _ in every))), sum(places for _, places in every)


def format_skipped_samples(records: Sequence[BadRecord], replaced_count: int) -> str:
    """Return one line on the samples that were left out."""
    if not records:
        return "bad data  none"
    names = [f"{record.split} {record.key}" for record in records[:_MAX_NAMES]]
    shown = ", ".join(names) + (", …" if len(records) > _MAX_NAMES else "")
    trained = f", {replaced_count} places of training had weight 0" if replaced_count else ""
    return f"bad data  {len(records)} unreadable{trained}: {shown}"


def gather_tolerated(warnings: Mapping[str, str]) -> dict[str, str]:
    """Return the samples that any rank decoded although a decoder warned, with its harmless warning."""
    return {
        name: warning
        for rank_warnings in _gather_objects(dict(warnings))
        for name, warning in sorted(rank_warnings.items())
    }


def describe_tolerated(warnings: Mapping[str, str]) -> str:
    """Return one line on samples that were decoded although a decoder warned."""
    shown = ", ".join(f"{name} ({warnings[name]})" for name in sorted(warnings)[:_MAX_TOLERATED_NAMES])
    return f"images    {len(warnings)} decoded despite a harmless warning: {shown}" + (
        ", …" * (len(warnings) > _MAX_TOLERATED_NAMES)
    )


def _gather_objects(own: object) -> list[Any]:
    """Return the objects of all ranks, by rank."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [own]
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, own)
    return every


class SkippingBatches:
    """`data.on_bad_sample=skip`: bad samples are replaced in place, with weight 0, and counted.

    Args:
        stream: makes the batches.
        split: 'train', 'val' or 'test'.
        skipped: what is known to be bad, and is added to.
    """

    def __init__(self, stream: Stream, split: str, skipped: SkippedSamples) -> None:
        self._stream, self._split, self._skipped = stream, split, skipped

    def __call__(
        self, plans: Iterable[BatchPlan], list_global_batch: Callable[[BatchPlan], NDArray[np.int64]]
    ) -> Iterator[Batch]:
        """Yield the stream's batches, all with weights.

        Args:
            plans: the batches to be made.
            list_global_batch: returns the samples of the global batch that a plan is part of, in order, int64.

        Raises:
            MLScaleError: no sample of a global batch can be read.
        """
        # The stream may take plans ahead of its batches; each waits here until its batch comes.
        waiting: deque[tuple[BatchPlan, BatchPlan]] = deque()

        def repair_plans() -> Iterator[BatchPlan]:
            for plan in plans:
                waiting.append((plan, self._repair_plan(plan, list_global_batch)))
                yield waiting[-1][1]

        for batch in self._stream(repair_plans()):
            plan, repaired = waiting.popleft()
            # The replacement can be bad as well. Every pass makes one more sample known, so this ends.
            while isinstance(batch, BadSample):
                self._skipped.record_bad_sample(self._split, batch)
                repaired = self._repair_plan(plan, list_global_batch)
                # A stream of its own: the other one has taken later plans already, and can't go back.
                (batch,) = self._stream([repaired])
            if self._split == "train":
                self._skipped.replaced_count += int((repaired.samples != plan.samples).sum())
            weight = _copy_weights(plan)
            # The loss of the step is that of the readable samples alone, on any layout.
            weight[repaired.samples != plan.samples] = 0
            batch["weight"] = torch.from_numpy(weight)
            yield batch

    def _repair_plan(self, plan: BatchPlan, list_global_batch: Callable[[BatchPlan], NDArray[np.int64]]) -> BatchPlan:
        """Return the plan without samples that are known to be bad."""
        bad = [self._is_bad(sample) for sample in plan.samples.tolist()]
        if not any(bad):
            return plan
        samples, candidates = plan.samples.copy(), list_global_batch(plan)
        for row in np.flatnonzero(bad).tolist():
            samples[row] = self._find_replacement(int(samples[row]), candidates)
        return plan._replace(samples=samples)

    def _find_replacement(self, sample: int, candidates: NDArray[np.int64]) -> int:
        """Return the next sample of the global batch, cyclically, that is not known to be bad."""
        start = int(np.argmax(candidates == sample))
        for other in np.roll(candidates, -start - 1).tolist():
            if not self._is_bad(other):
                return int(other)
        first = self._skipped.errors[self._split, sample]
        raise MLScaleError(
            f"none of the {len(candidates)} samples of a global batch can be read",
            where=f"data.{self._split}",
            why=f"the first: {first.what}: {first.why}",
            fix="write the data again; if it is complete, something is wrong with how it is read",
        )

    def _is_bad(self, sample: int) -> bool:
        return (self._split, sample) in self._skipped.errors


def _copy_weights(plan: BatchPlan) -> NDArray[np.float32]:
    return np.ones(len(plan.samples), np.float32) if plan.weight is None else plan.weight.copy()


BAD_LIST = "bad_samples.jsonl"
"""The file in a run's folder with the samples that the run has left out."""


def write_bad_list(path: Path, records: Sequence[BadRecord]) -> None:
    """Write the list, whole or not at all; an empty one if there are none.

    Raises:
        MLScaleError: the file can't be written (exit code 5).
    """
    # Whole or not at all: half a list would be taken for all of it.
    make_folders(path.absolute().parent)
    lines = [
        json.dumps({"split": record.split, "sample": record.key, "why": record.why}, ensure_ascii=False)
        for record in records
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_bad_list(path: Path, *, where: str) -> list[BadRecord]:
    """Return the samples of a list.

    Raises:
        MLScaleError: the file can't be read, or a line is not of such a list.
    """
    fix = f"{where}=<a file that mlscale data verify … bad=bad.jsonl wrote>"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = explain_os_error(error, path) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise MLScaleError(f"the list {str(path)!r} can't be read", where=where, why=why, fix=fix) from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            document = json.loads(line)
            records.append(BadRecord(str(document["split"]), str(document["sample"]), str(document.get("why", ""))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MLScaleError(
                f"line {number} of {str(path)!r} names no sample",
                where=where,
                why='a line is {"split": "train", "sample": "<its name>"}',
                fix=fix,
            ) from error
    return records
