"""Collects the reference profile of any task type, from packed validation samples and their predictions.

The reference profile of a language model: of passages of the validation documents, each as a client sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.data.encoders.summaries.text_summary import TextSummary, WordTable, create_summary
from mlscale.data.encoders.table_columns import NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.text.language_data import LanguageData
from mlscale.data.text.passages import cut_passages
from mlscale.export.parity import compute_task_scores
from mlscale.reference.column_sketch import (
    MAX_SCORES,
    ColumnSketch,
    Group,
    ScoreReference,
    build_category_sketch,
    build_number_sketch,
)
from mlscale.reference.passage_rows import UNKNOWN_WORDS, PassageRows
from mlscale.reference.stored_reference import StoredReference
from mlscale.task_types.event_forms import AnswerNames, PredictionColumns, SummaryColumns
from mlscale.task_types.sample_score import SampleScore
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from mlscale.export.validation_samples import SampleFormat

_MAX_TEXTS = 20_000
"""The most texts that words are counted in."""
_UNKNOWN = "unknown_words"


class ReferenceBuilder:
    """A reference profile that is collected batch by batch, by the summaries that events are made by.

    Args:
        encoder: of the samples.
        task_type: of the predictions.
        names: of classes and targets.
    """

    def __init__(self, encoder: Encoder, task_type: TaskType, names: AnswerNames) -> None:
        self.samples = 0
        self._encoder, self._task_type, self._names = encoder, task_type, names
        self._summary = create_summary(encoder)
        self._inputs: list[SummaryColumns] = []
        self._outputs: list[SummaryColumns] = []
        self._scores: list[NDArray[np.float64]] = []
        self._texts: list[bytes] = []
        self._lengths: list[NDArray[np.float64]] = []
        self._groups: list[NDArray[np.int64]] = []
        # Facts of raw samples by name, and whether any sample has each.
        self._facts: dict[str, bool] = {}

    def add_batch(
        self,
        packed: EncodedSamples,
        predictions: PredictionColumns,
        scores: NDArray[np.float64] | None,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            packed: n samples, none of them bad.
            predictions: as of `build_predictions`.
            scores: of each sample, (n,); None where the task type has none.
            groups: of passages of documents, the numbers of those that are not independent, (n,); None for other
                samples.
        """
        columns = self._summary.summarize_samples(packed)
        selected = {name: values for name, values in columns.items() if name not in self._summary.unmeasured}
        self._inputs.append(selected)
        if groups is not None:
            self._lengths.append(np.asarray(columns["length"], np.float64))
            self._groups.append(groups)
        for name, values in (packed.facts or {}).items():
            self._facts[name] = self._facts.get(name, False) or not np.isnan(values).all()
        self._outputs.append(self._task_type.summarize_outputs(predictions, self._names))
        if scores is not None:
            self._scores.append(np.asarray(scores, np.float64))
        if isinstance(self._summary, TextSummary) and len(self._texts) < _MAX_TEXTS:
            self._texts += self._summary.list_texts(packed)
        # By a column, not by the tensors: a document has several rows there.
        self.samples += len(next(iter(columns.values())))

    def finish(self, **about: object) -> StoredReference:
        """Return the reference, with the caller's metadata."""
        if self._groups:
            return self._finish_passages(about)
        words, unknown = self._measure_words()
        # The summary has the size of the tensor in place of a size that no sample has kept: production would differ.
        measured = {name: values for name, values in _join_columns(self._inputs).items() if self._facts.get(name, True)}
        inputs = measured | unknown
        units = {}
        if isinstance(self._encoder, TableEncoder):
            units = {column.name: column.unit for column in self._encoder.columns if isinstance(column, NumberColumn)}
        outputs = _join_columns(self._outputs)
        columns = [
            *(_build_sketch("inputs", f"input.{name}", values, units.get(name, "")) for name, values in inputs.items()),
            *(_build_sketch("outputs", f"output.{name}", values, "") for name, values in outputs.items()),
        ]
        return StoredReference({"samples": self.samples, **about}, tuple(columns), self._build_score(), words)

    def _finish_passages(self, about: dict[str, object]) -> StoredReference:
        """Return the reference of passages, with the values of each: production's documents may have any length."""
        groups = np.concatenate(self._groups)
        # Not of the same documents: none of their words would be unknown.
        gave_words = groups % 2 == 0
        table = WordTable.collect_words([text for text, gave in zip(self._texts, gave_words, strict=True) if gave])
        columns = {f"input.{name}": np.asarray(values) for name, values in _join_columns(self._inputs).items()}
        columns[UNKNOWN_WORDS] = np.array([_measure_unknown_words(table, text) for text in self._texts])
        columns |= {f"output.{name}": np.asarray(values) for name, values in _join_columns(self._outputs).items()}
        rows = PassageRows(np.concatenate(self._lengths), groups, gave_words, columns, np.concatenate(self._scores))
        sketches = rows.build_sketches(np.ones(len(groups)))
        about = {"samples": self.samples, **about}
        return StoredReference(about, sketches, self._build_score(), table.words, rows)

    def _measure_words(self) -> tuple[tuple[bytes, ...], SummaryColumns]:
        """Return the words of every second text, and the share of other words in the texts between.

        Not of the same texts: none of their words would be unknown, and production would look drifted.
        """
        if not self._texts:
            return (), {}
        table = WordTable.collect_words(self._texts[::2])
        shares = [_measure_unknown_words(table, text) for text in self._texts[1::2]]
        return table.words, {_UNKNOWN: np.array(shares, np.float64)} if shares else {}

    def _build_score(self) -> ScoreReference | None:
        if not self._scores:
            return None
        score: SampleScore = self._task_type.score
        values = np.concatenate(self._scores)
        values = values[~np.isnan(values)]
        if not len(values):
            return None
        unit = score.unit
        if unit == "target":
            units = {target.unit for target in self._names.targets}
            # A mean over targets of different units has none.
            unit = units.pop() if len(units) == 1 else ""
        # Evenly spread, not the first ones: validation files are often sorted by class.
        selected = values[np.linspace(0, len(values) - 1, min(MAX_SCORES, len(values))).round().astype(np.int64)]
        return ScoreReference(
            score.name,
            score.higher_is_better,
            unit,
            score.is_share,
            score.is_binary,
            float(values.mean()),
            len(values),
            selected,
        )


def _measure_unknown_words(table: WordTable, text: bytes) -> float:
    words, unknown = table.count_words(text)
    return unknown / words if words else float("nan")


def _join_columns(parts: list[SummaryColumns]) -> SummaryColumns:
    joined: SummaryColumns = {}
    for name, first in parts[0].items() if parts else ():
        values: list[Any] = [part[name] for part in parts]
        joined[name] = [item for part in values for item in part] if isinstance(first, list) else np.concatenate(values)
    return joined


def _build_sketch(group: Group, name: str, values: NDArray[np.float64] | list[str | None], unit: str) -> ColumnSketch:
    # Files are often in the order of their classes, which says nothing of time.
    if isinstance(values, list):
        return build_category_sketch(name, group, values, is_ordered=False)
    return build_number_sketch(name, group, values, unit, is_ordered=False)


Compute = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
_BATCH = 32


def collect_passage_reference(
    data: LightningDataModule,
    task_type: TaskType,
    given: SampleFormat,
    compute: Compute,
) -> ReferenceBuilder | None:
    """Return the reference of passages; None where samples are not documents.

    Args:
        data: set up for validation.
        task_type: of the predictions.
        given: the format of the samples.
        compute: returns the outputs of the exported model for the tensors of its graph.
    """
    encoder = given.encoder
    documents = data.list_documents("val") if isinstance(data, LanguageData) else []
    if not isinstance(encoder, DocumentEncoder) or not any(documents):
        return None
    return collect_documents([text for text in documents if text], encoder, task_type, given.names, compute)


def collect_documents(
    documents: Sequence[bytes], encoder: DocumentEncoder, task_type: TaskType, names: AnswerNames, compute: Compute
) -> ReferenceBuilder:
    """Return the reference of passages of documents, none of them empty; other arguments as above."""
    passages = cut_passages(documents, encoder.count_windows)
    reference = ReferenceBuilder(encoder, task_type, names)
    for start in range(0, len(passages), _BATCH):
        part = passages[start : start + _BATCH]
        packed = encoder.pack_samples([passage.text for passage in part])
        assert packed.counts is not None
        outputs = task_type.merge_rows(compute(packed.tensors), packed.counts)
        # A text is its own truth: its score needs no label.
        scores = compute_task_scores(task_type, outputs, np.zeros(len(part), np.int64))
        groups = np.array([passage.group for passage in part], np.int64)
        reference.add_batch(packed, task_type.build_predictions(outputs, names.labels), scores, groups)
    return reference
