"""A pass of a servable over the raw samples of a split, as a client would send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.errors import MLScaleError
from mlscale.evaluate.sample_collector import SampleCollector
from mlscale.export.servable import Servable, cast_input
from mlscale.export.validation_samples import SampleBatch, iterate_split_batches
from mlscale.task_types.task_type import AnswerNames
from mlscale.task_types.tensor_type import TensorType

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

_MOST_NAMES = 8


def check_servable_measurable(servable: Servable) -> None:
    """Check that the predictions of a servable have a score.

    Raises:
        MLScaleError: its task states no type.
    """
    if isinstance(servable.task_type, TensorType):
        raise MLScaleError(
            "the servable's task states no type",
            where=str(servable.folder),
            why="its outputs are tensors, and what is right or wrong about them is not known",
            fix="mlscale evaluate <the run>, which measures what the task logs; or give it a kind: docs/evaluate.md",
        )


def collect_servable_samples(
    servable: Servable, data: LightningDataModule, split: str, collector: SampleCollector
) -> None:
    """Add the predictions for each sample of a split to a collector; samples that could not be read are left out.

    Args:
        servable: the model.
        data: set up for the split.
        split: val or test.
        collector: of the servable's task type and names.

    Raises:
        MLScaleError: the data has other classes or targets than the model, or samples that the model does not take.
    """
    # Matched by name: this data may number its classes, or order its targets, differently.
    _check_tokenizer(servable, data)
    numbers = map_truth_numbers(data, servable.names, every=servable.task_type.needs_every_label)
    for batch in iterate_split_batches(data, split):
        outputs = _add_bytes(servable.compute_samples(_pack_batch(servable, batch)), data)
        truth = servable.task_type.renumber_truth(batch.y, numbers)
        arrays = {"x": np.ascontiguousarray(batch.raw), "y": np.ascontiguousarray(truth)}
        taken: dict[str, Any] = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if batch.keys is not None:
            taken["key"] = batch.keys
        collector.collect_batch({name: torch.from_numpy(values) for name, values in outputs.items()}, taken)


def _check_tokenizer(servable: Servable, data: LightningDataModule) -> None:
    """Check that blocks of tokens are those of the servable's tokenizer; other texts it reads by itself.

    Raises:
        MLScaleError: they are of another one.
    """
    encoder, facts = servable.encoder, data.facts() if hasattr(data, "facts") else None
    known = encoder.tokenizer.digest if isinstance(encoder, TokenDocumentEncoder) else None
    if isinstance(encoder, DocumentEncoder) and facts is not None and facts.tokenizer != known:
        raise MLScaleError(
            "the tokenizer of the data is not that of the servable",
            where="data.tokenizer",
            why=f"its digest is {facts.tokenizer or 'none, as tokens are bytes'}; "
            f"the servable's is {known or 'none, as tokens are bytes'}",
            fix="data.tokenizer=<the file that the model was trained with>",
        )


def _add_bytes(outputs: Mapping[str, NDArray[Any]], data: LightningDataModule) -> dict[str, NDArray[Any]]:
    """Return the outputs of a language model with the `bytes` of text, where tokens are not bytes."""
    facts = data.facts() if hasattr(data, "facts") else None
    if facts is None or facts.tokenizer is None or "nats" not in outputs:
        return dict(outputs)
    return {**outputs, "bytes": outputs["tokens"] * np.float32(facts.bytes_per_token)}


def map_truth_numbers(data: LightningDataModule, names: AnswerNames, *, every: bool = False) -> NDArray[np.int64]:
    """Return the model's number for each class of the data, or for each target: int64 (classes,) or (targets,).

    Args:
        data: the data module, set up.
        names: of the model's classes and targets.
        every: the data must have all of the model's, as each is measured on every sample.

    Raises:
        MLScaleError: the model does not know a class or a target; or the data lacks one that it must have.
    """
    facts = data.facts() if hasattr(data, "facts") else None
    if names.targets and not names.labels:  # a table names the column of its classes, too
        described = data.describe_targets() if hasattr(data, "describe_targets") else ()
        known, what = [target.name for target in names.targets], "target"
        given, every = [target.name for target in described] or known, True
    else:
        known, what = list(names.labels), "class"
        given = known
        if facts is not None:
            given = [str(name) for name in facts.class_names or range(facts.num_classes or len(known))]
    unknown = [name for name in given if name not in known]
    missing = [name for name in known if name not in given] if every else []
    if unknown or missing:
        other = unknown or missing
        raise MLScaleError(
            f"the {'model does not know' if unknown else 'data lacks'} the {what} '{other[0]}'"
            + (f" and {len(other) - 1} more" * (len(other) > 1)),
            where="data",
            why=f"the model's are {_list_names(known)}; the data's are {_list_names(given)}",
            fix=f"choose data of the {'classes' if what == 'class' else 'targets'} that the model was trained on",
        )
    return np.array([known.index(name) for name in given], np.int64)


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


def _pack_batch(servable: Servable, batch: SampleBatch) -> EncodedSamples:
    """Return a batch as the servable's graph takes it.

    Raises:
        MLScaleError: a sample that the data could read is not one that the servable takes.
    """
    encoder = servable.encoder
    if servable.format == 1:
        # Its graph takes what the data module decodes.
        port = servable.inputs[0]
        return EncodedSamples({port.name: cast_input(batch.raw, port)}, {})
    if isinstance(encoder, DocumentEncoder) and batch.raw.shape[1:] != encoder.inputs[0].shape:
        raise MLScaleError(
            f"the model takes blocks of {encoder.length} {encoder.unit}s",
            where="data",
            why=f"this data has samples of the shape {batch.raw.shape[1:]}, with the next {encoder.unit} in each",
            fix=f"data.length={encoder.length}",
        )
    packed = batch.pack(encoder)
    for number, reason in packed.bad.items():
        name = batch.keys[number] if batch.keys is not None else f"sample {number}"
        raise MLScaleError(
            f"the servable does not take {name}",
            where="data",
            why=reason,
            fix="choose data like that which the model was trained on",
        )
    return packed
