"""Collect the columns that the reports need, batch by batch: numbers in memory, the rest in the table of samples.

In memory are some forty bytes a sample (with several labels or targets, some more of each), the inputs of the worst
samples, and the logits of at most 20,000 samples drawn at random; probabilities are written to the table at once.

The classes or targets of the data that a model is measured on, as reports need them.

The samples of an evaluation pass, with the task type that measures them.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor

from mlscale.data.tables.table_rows import TabularData
from mlscale.errors import MLScaleError
from mlscale.task_types.collected_samples import CollectedSamples, Columns, TaskInfo, WorstSample
from mlscale.task_types.task_type import TaskType

_MAX_LOGITS = 20_000  # bounds the memory: 80 MB with 1,000 classes; far more than fitting a temperature needs


class RowWriter(Protocol):
    """A writer that takes the rows of each batch: the table of samples."""

    def add_samples(self, keys: Sequence[str], columns: Columns) -> None: ...


class SampleCollector:
    """A collector of the samples of one evaluation pass.

    Args:
        task_type: of the model.
        task_info: its classes or targets.
        table: gets every row; None for none.
        worst: number of worst samples whose input is kept.
        seed: for drawing the samples whose logits are kept.
    """

    def __init__(
        self,
        task_type: TaskType,
        task_info: TaskInfo,
        table: RowWriter | None = None,
        *,
        worst: int = 24,
        seed: int = 0,
    ) -> None:
        self.task_type, self.task_info = task_type, task_info
        self._table, self._max_worst = table, worst
        self._keys: list[str] = []
        self._seen = 0
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._worst: list[WorstSample] = []
        self._rng = np.random.default_rng(seed)
        self._logits: NDArray[np.float32] | None = None
        self._logit_rows = np.zeros(_MAX_LOGITS, np.int64)

    def collect_batch(self, outputs: Mapping[str, Tensor], batch: object) -> None:
        """Add a batch and the model's outputs for it. Samples of weight 0 do not count.

        Args:
            outputs: of `predict_step`.
            batch: {"x", "y", "weight"?, "key"?} or (x, y).

        Raises:
            MLScaleError: the outputs are not those of the task type, or not numbers.
        """
        from mlscale.tasks.batch import unpack_batch

        x, y, weight = unpack_batch(batch)
        keys = batch.get("key") if isinstance(batch, Mapping) else None
        keys = list(keys) if keys is not None else [f"#{self._seen + index}" for index in range(len(y))]
        self._seen += len(y)  # before filtering: a sample's number does not depend on others that could not be read
        if weight is not None and not bool((weight > 0).all()):
            mask = weight > 0
            x, y, outputs = x[mask], y[mask], {name: value[mask] for name, value in outputs.items()}
            keys = [key for key, keep in zip(keys, mask.tolist(), strict=True) if keep]
        if not keys:
            return
        task_type = self.task_type
        columns = compute_sample_columns(task_type, outputs, y)
        _check_numbers(keys, columns["loss"], may_be_infinite=task_type.may_have_infinite_loss)
        start = len(self._keys)
        self._keys += keys
        self._keep_logits(columns, start)
        # -inf, of what is not an error, is never above the heap's floor.
        self._keep_worst(task_type.rank_errors(columns), keys, start, x, outputs, y)
        for name, values in columns.items():
            if name not in task_type.passing_columns:
                self._parts.setdefault(name, []).append(values)
        if self._table is not None:
            self._table.add_samples(keys, {name: columns[name] for name in task_type.table_columns})

    def collect_samples(self) -> EvaluatedSamples:
        """Return all samples that were added."""
        columns = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        worst = sorted(self._worst, key=lambda sample: (-sample.loss, sample.row))
        some = min(_MAX_LOGITS, len(self._keys))
        logits = None if self._logits is None else self._logits[:some]
        rows = self._logit_rows[:some]
        return EvaluatedSamples(self.task_info, self._keys, columns, worst, logits, rows, task_type=self.task_type)

    def _restore_pixels(self, x: Tensor) -> Tensor:
        """Return images in the units they were stored in, the normalisation reversed."""
        if not self.task_info.mean:
            return x.float()
        mean, std = (
            torch.tensor(values, device=x.device)[:, None, None] for values in (self.task_info.mean, self.task_info.std)
        )
        return x.float() * std + mean

    def _keep_logits(self, columns: Columns, start: int) -> None:
        """Keep a uniform random sample of all logits: Vitter's reservoir sampling, algorithm R, 1985."""
        if "logits" not in columns:
            return
        logits = columns["logits"]
        if self._logits is None:  # at full size: the system allocates pages only when they are written to
            self._logits = np.empty((_MAX_LOGITS, logits.shape[1]), np.float32)
        rows = np.arange(start, start + len(logits))
        drawn = self._rng.integers(0, rows + 1)
        # The first rows fill the reservoir; a later one replaces a random entry, if its draw falls within.
        slots = np.where(rows < _MAX_LOGITS, rows, drawn)
        for slot, logit, row in zip(slots, logits, rows, strict=True):
            if slot < _MAX_LOGITS:
                self._logits[slot], self._logit_rows[slot] = logit, row

    def _keep_worst(
        self, loss: NDArray[Any], keys: Sequence[str], start: int, x: Tensor, outputs: Mapping[str, Tensor], y: Tensor
    ) -> None:
        if self._max_worst < 1:
            return
        # `_worst` is a heap, smallest loss first: `floor` is what a sample must exceed to replace one.
        floor = self._worst[0].loss if len(self._worst) == self._max_worst else -np.inf
        for index in np.argsort(-loss, kind="stable")[: self._max_worst].tolist():
            if not loss[index] > floor:
                break  # losses fall from here on
            pixels = self._restore_pixels(x[index][None])[0] if x.ndim == 4 else x[index]
            masks = self.task_type.extract_masks({name: value[index] for name, value in outputs.items()}, y[index])
            shown = tuple(mask.to(torch.uint8).cpu().numpy() for mask in masks)
            sample = WorstSample(float(loss[index]), start + index, keys[index], pixels.cpu().numpy(), shown)
            if len(self._worst) < self._max_worst:
                heapq.heappush(self._worst, sample)
            else:
                heapq.heapreplace(self._worst, sample)
            floor = self._worst[0].loss if len(self._worst) == self._max_worst else -np.inf


def _check_numbers(keys: Sequence[str], loss: NDArray[Any], *, may_be_infinite: bool) -> None:
    """Raise an error if a loss is NaN, which would count as class 0, or infinite where it may not be."""
    bad = np.isnan(loss) if may_be_infinite else ~np.isfinite(loss)
    if bad.any():
        raise MLScaleError(
            f"the model's output for sample {keys[int(bad.argmax())]!r} is not a finite number",
            where="task.predict_step",
            why="its weights have diverged, a 16-bit precision overflows, or the sample itself holds NaN",
            fix="checkpoint=<an earlier one>\nprecision=fp32",
        )


def compute_sample_columns(task_type: TaskType, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
    """Return the columns of a batch.

    Args:
        task_type: of the task.
        outputs: of `predict_step`: {"logits"}, {"value"} or {"nats", "tokens"}, n first.
        y: the truth, as the data gives it.

    Raises:
        MLScaleError: the outputs are not those of the task type.
    """
    if not isinstance(outputs, Mapping):
        raise MLScaleError(
            f"predict_step gives a {type(outputs).__name__}, and a module with a kind gives its outputs by name",
            where="task.predict_step",
            why=f"kind is {task_type.name}, whose outputs are {', '.join(task_type.output_meanings)}",
            fix="leave kind out of the class: then its own metrics alone are measured",
        )
    # A user's task may return other names or shapes; the error then names both instead of torch's message alone.
    try:
        return task_type.compute_columns(outputs, y.to(next(iter(outputs.values())).device))
    except (KeyError, RuntimeError, IndexError) as error:
        shapes = {name: tuple(value.shape) for name, value in outputs.items() if isinstance(value, Tensor)}
        raise MLScaleError(
            f"the model's output can't be measured as {task_type.name}",
            where="task.predict_step",
            why=f"it gives {shapes} for targets of {tuple(y.shape)}: {' '.join(str(error).split())[:200]}",
            fix="let predict_step and kind agree: docs/evaluate.md lists what each kind gives",
        ) from error


def describe_task_info(
    data: LightningDataModule | None, class_names: Sequence[str] | None = None, num_classes: int | None = None
) -> TaskInfo:
    """Return the names of classes or targets, and the mean and deviation of the channels.

    Args:
        data: the data module; one without facts gives none of them.
        class_names, num_classes: of the model, where they are known: the data may have others.
    """
    source: Any = data
    facts = source.facts() if hasattr(data, "facts") else None
    if facts is None:
        return TaskInfo()
    names = class_names or facts.class_names or ()
    count = num_classes or facts.num_classes or 0
    # Classes without a name are called by their number.
    labels = tuple(map(str, [*names, *range(len(names), count)]))
    targets = data.targets if isinstance(data, TabularData) else ()
    return TaskInfo(labels, tuple(facts.mean), tuple(facts.std), targets)


# A class of its own: a task type takes samples, so samples that know their type are a layer above it.
@dataclass(eq=False)
class EvaluatedSamples(CollectedSamples):
    """All samples of one evaluation pass, and their task type.

    Attributes:
        task_type: of the model that was evaluated.
    """

    task_type: TaskType = field(kw_only=True)
