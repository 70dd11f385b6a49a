"""The reference profile of a language model: of passages of the validation documents, each as a client sends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.text.language_data import LanguageData
from mlscale.data.text.passages import cut_passages
from mlscale.export.parity import compute_task_scores
from mlscale.export.reference_builder import ReferenceBuilder
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from mlscale.export.validation_samples import SampleFormat

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
