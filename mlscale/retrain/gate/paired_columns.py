"""The predictions of two models for the same raw samples, as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.summaries.text_summary import create_summary
from mlscale.data.encoders.text_encoder import convert_to_bytes
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.errors import MLScaleError
from mlscale.evaluate.slices import SliceColumns
from mlscale.export.servable import Servable
from mlscale.predict.batch_models import mark_infinite_outputs
from mlscale.task_types.collected_samples import Columns
from mlscale.task_types.event_forms import SummaryColumns

LabelledSamples = Iterable[tuple[Sequence[Any] | NDArray[Any], NDArray[Any]]]
"""Batches of raw samples, as a client sends them, with the truth in the task type's form, numbered as the model does:
class numbers (n,), labels (n, k), masks (n, h, w), numbers (n, targets)."""
_MOST_NAMES = 8


@dataclass(frozen=True, eq=False)
class PairedColumns:
    """n samples that both models predict.

    Attributes:
        first, second: columns of champion and challenger, by the task type.
        rows: the indices of the samples among those that were given, int64 (n,).
        left_out: samples that a model does not take, or for which the champion's output is not finite.
        not_finite: samples for which the challenger's output alone is not finite; they are not among the n.
        inputs: the samples as columns by name (`create_summary`); empty unless they were asked for.
    """

    first: Columns
    second: Columns
    rows: NDArray[np.int64]
    left_out: int
    not_finite: int
    inputs: SliceColumns = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def select_classes(self, without: NDArray[np.int64], servable: Servable) -> PairedColumns:
        """Return the columns without some classes."""
        if not len(without):
            return self
        first, is_left = servable.task_type.drop_classes(self.first, without)
        second, _ = servable.task_type.drop_classes(self.second, without)
        return PairedColumns(first, second, self.rows[is_left], self.left_out, self.not_finite)


def check_same_names(champion: Servable, challenger: Servable) -> None:
    """Check that two models number their classes and targets alike.

    Raises:
        MLScaleError: they don't, or are of different types.
    """
    if champion.task_type.name == challenger.task_type.name and champion.names == challenger.names:
        return
    raise MLScaleError(
        "champion and challenger do not predict the same",
        where=str(challenger.folder),
        why=f"{champion.task_type.name} of {_list_names(champion)}; {challenger.task_type.name} of "
        f"{_list_names(challenger)}",
        fix="train it on data with the same classes, or publish it as a model of another name",
    )


def collect_paired_columns(
    champion: Servable, challenger: Servable, samples: LabelledSamples, *, with_inputs: bool = False
) -> PairedColumns | None:
    """Predict all samples by both models, in one pass, so that they are decoded once; None if there are none."""
    summary = create_summary(champion.encoder)
    inputs: list[SummaryColumns] = []
    sides: tuple[list[Columns], list[Columns]] = ([], [])
    rows: list[NDArray[np.int64]] = []
    start = left_out = not_finite = 0
    for raw, truth in samples:
        before, after = (_compute_all_outputs(model, raw) for model in (champion, challenger))
        is_kept = before.is_finite & after.is_finite
        # The challenger alone is at fault here; a sample that the champion fails on as well counts against neither.
        is_broken = before.is_finite & after.is_taken & ~after.is_finite
        not_finite += int(is_broken.sum())
        left_out += int((~is_kept & ~is_broken).sum())
        if is_kept.any():
            for side, outputs in zip(sides, (before, after), strict=True):
                side.append(_build_columns(champion, outputs, is_kept, truth[is_kept]))
            rows.append(start + np.flatnonzero(is_kept))
            if with_inputs:
                usable = [raw[row] for row in np.flatnonzero(is_kept).tolist()]
                inputs.append(summary.summarize_samples(champion.pack_samples(usable)))
        start += len(raw)
    if not rows:
        return None
    first, second = map(_concatenate_columns, sides)
    names = inputs[0] if inputs else ()
    columns: SliceColumns = {name: [value for part in inputs for value in part[name]] for name in names}
    return PairedColumns(first, second, np.concatenate(rows), left_out, not_finite, columns)


@dataclass(frozen=True, eq=False)
class _Outputs:
    """The outputs of a batch.

    Attributes:
        values: of the samples that the model takes.
        is_taken: whether it takes each sample, bool (n,).
        is_finite: whether it takes it and its output is finite, bool (n,).
    """

    values: Mapping[str, NDArray[Any]]
    is_taken: NDArray[np.bool_]
    is_finite: NDArray[np.bool_]


def _compute_all_outputs(model: Servable, raw: Sequence[Any] | NDArray[Any]) -> _Outputs:
    packed = model.pack_samples(list(raw))
    is_taken = np.ones(len(raw), np.bool_)
    is_taken[list(packed.bad)] = False
    if not is_taken.any():
        return _Outputs({}, is_taken, is_taken)
    values = model.compute_samples(packed)
    is_finite = is_taken.copy()
    # argmax would still choose a class, the first one.
    is_finite[is_taken] = ~mark_infinite_outputs(values)
    return _Outputs(_add_text_bytes(values, model, raw, is_taken), is_taken, is_finite)


def _add_text_bytes(
    values: Mapping[str, NDArray[Any]], model: Servable, raw: Sequence[Any] | NDArray[Any], is_taken: NDArray[np.bool_]
) -> Mapping[str, NDArray[Any]]:
    """Return outputs with the bytes of each text, where tokens are none: bits per byte are counted by them."""
    if not isinstance(model.encoder, TokenDocumentEncoder):
        return values
    # The end of a document counts as a byte, as it does in a model of bytes and in training.
    sizes = [len(convert_to_bytes(raw[row])) + 1 for row in np.flatnonzero(is_taken).tolist()]
    return {**values, "bytes": np.array(sizes, np.float32)}


def _build_columns(
    servable: Servable, outputs: _Outputs, is_kept: NDArray[np.bool_], truth: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    import torch

    # The outputs have rows for the samples that were taken alone, and so must the mask.
    mask = is_kept[outputs.is_taken]
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values[mask])) for name, values in outputs.values.items()}
    columns = servable.task_type.compute_columns(tensors, torch.from_numpy(np.ascontiguousarray(truth)))
    return {name: values for name, values in columns.items() if name not in servable.task_type.passing_columns}


def _concatenate_columns(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _list_names(servable: Servable) -> str:
    names = servable.task_type.list_class_names(servable.names)
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "") or "no classes"
