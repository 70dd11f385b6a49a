"""Export a task; compare and profile it in one pass over the validation samples, and time it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, LightningModule

from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.export.encoder_parity import EncoderComparison
from mlscale.export.engines.engine import Port
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.graphs.encoder_graph import prepend_encoder_graph
from mlscale.export.half_precision import convert_to_half
from mlscale.export.onnx_export import export_onnx
from mlscale.export.own_answers import check_own_answers
from mlscale.export.parity import Outputs, Parity, compute_task_scores
from mlscale.export.reference_builder import ReferenceBuilder, collect_passage_reference
from mlscale.export.served_module import (
    EXAMPLES,
    ServedModule,
    build_example_tensors,
    build_served_module,
    compute_plain_outputs,
    require_predictions,
)
from mlscale.export.trained_comparison import TrainedComparison
from mlscale.export.validation_samples import (
    SampleBatch,
    SampleFormat,
    describe_sample_format,
    iterate_validation_batches,
)
from mlscale.export.warmup.warmup_samples import WarmupSampler
from mlscale.stats.timing import TimesCompared
from mlscale.task_types.registry import resolve_task_type
from mlscale.task_types.task_type import TaskType
from mlscale.task_types.tensor_type import OUTPUT, PlainClassification, TensorType

_BISECTED, _CHECKED = 32, 16  # samples
_ROUNDING = 1e-4  # of the largest output


@dataclass(frozen=True)
class ExportMeasurement:
    """An exported model and its measurements.

    Attributes:
        model: the ONNX model, serialised.
        given: the format of its samples.
        task_type: says what its outputs mean.
        inputs, outputs: of the model.
        parity: the comparison with the trained model.
        reference: the columns of its inputs and predictions, and their scores.
        times: of one sample on one thread: the trained model in eager mode, normalisation included, then the exported.
        comparison: compares and times other engines, too.
        warmup: names and raw samples that warm-up requests are made of.
        is_type_stated: the task states its type; else it was inferred, or is that of plain tensors.
        find_layer: returns in words which layer differs most, or that none does; it takes about as long as the export.
    """

    model: bytes
    given: SampleFormat
    task_type: TaskType
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parity: Parity
    reference: ReferenceBuilder
    times: TimesCompared
    comparison: TrainedComparison = field(repr=False)
    warmup: list[tuple[str, Any]] = field(repr=False)
    is_type_stated: bool
    find_layer: Callable[[], str] = field(repr=False)


def export_and_measure(
    task: LightningModule,
    data: LightningDataModule,
    *,
    samples: int | None = None,
    model: bytes | None = None,
    half: bool = False,
    tolerance: float = _ROUNDING,
) -> ExportMeasurement:
    """Export `task` and measure the result; or measure `model`, a compressed version of it.

    Args:
        task: with its weights; it stays on the CPU, in evaluation mode.
        data: the data module it was trained with, set up for validation.
        samples: number of validation samples to use; None for all.
        model: a serialised ONNX model that takes `encoder.inputs`, made of the same weights; None exports them.
        half: convert it to half precision.
        tolerance: largest difference of an output, as a share of the largest, that other samples of a batch may make.

    Raises:
        MLScaleError: the task gives no row for each sample, or one that is not its own, or ONNX can't express it.
    """
    task_type, given, trained = describe_served_model(task, data)
    # Before what takes long: no engine could be compared with it, and no server may batch for it.
    # A tighter bound is one for the engine: batches of another size round otherwise.
    own, examples = max(tolerance, _ROUNDING), next(iterate_validation_batches(data, limit=_CHECKED)).tensors
    check_own_answers(trained, examples, own)
    exported = export_onnx(trained) if model is None else model
    # Before the encoder's part is joined to it, which stays in float64.
    content = prepend_encoder_graph(given.encoder, convert_to_half(exported, given.encoder) if half else exported)
    engine = OnnxEngine(content)
    sampler, encoders = WarmupSampler(given.encoder), EncoderComparison(given.encoder, content)
    reference = ReferenceBuilder(given.encoder, task_type, given.names)
    given_samples: list[EncodedSamples] = []

    def note_batch(batch: SampleBatch, packed: EncodedSamples) -> None:
        encoders.add_batch(batch, packed)
        given_samples[:] = [packed]

    def collect_batch(batch: SampleBatch, outputs: Outputs) -> None:
        sampler.add_batch(batch)
        predictions = task_type.build_predictions(outputs, given.names.labels)
        reference.add_batch(given_samples[0], predictions, compute_task_scores(task_type, outputs, batch.y))

    comparison = TrainedComparison(trained, data, task_type, given.encoder, samples)
    parity = comparison.compare_engine(engine, on_encoded=note_batch, on_batch=collect_batch)
    parity.encoder = encoders.find_difference()
    # Blocks of training text are no documents: production is compared with what a client may send.
    reference = collect_passage_reference(data, task_type, given, engine.compute) or reference
    return ExportMeasurement(
        content,
        given,
        task_type,
        engine.inputs,
        engine.outputs,
        parity,
        reference,
        comparison.compare_times(engine),
        comparison,
        sampler.samples,
        resolve_task_type(task) is not None or getattr(task, "kind", None) == TensorType.name,
        partial(_find_layer, trained, content, data, given.encoder),
    )


def _find_layer(trained: ServedModule, content: bytes, data: LightningDataModule, encoder: Encoder) -> str:
    from mlscale.export.layer_bisect import find_first_difference

    batch = next(iterate_validation_batches(data, limit=_BISECTED))
    packed = batch.pack(encoder).tensors
    try:
        difference = find_first_difference(trained, content, packed, tensors=batch.tensors)
    except Exception as error:  # whatever stops the search, what it was to explain is reported
        return f"the layer was not found: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if difference is None:
        return (
            "no layer by itself differs beyond rounding: the layers after it multiply that, or torch.export traces "
            "another computation than the module's own"
        )
    return difference.sentence


def describe_served_model(
    task: LightningModule, data: LightningDataModule
) -> tuple[TaskType, SampleFormat, ServedModule]:
    """Return the type of a task, the format of its samples with the names of its classes, and the task as it is served.

    Args:
        task: with its weights.
        data: prepared and set up for validation.

    Raises:
        MLScaleError: the task has no forward, or gives no row for each sample.
    """
    require_predictions(task)
    given = describe_sample_format(data)
    task_type = find_served_type(task, next(iterate_validation_batches(data, limit=EXAMPLES)), given.classes, data)
    trained = build_served_module(task, task_type, given.encoder)
    with torch.no_grad():
        logits = trained(*build_example_tensors(trained.specs)).get("logits")
    if logits is not None and not given.names.labels:
        # From the outputs themselves: data may not know the number of classes.
        labels = tuple(map(str, range(logits.shape[1])))
        given = replace(given, names=replace(given.names, labels=labels))
    return task_type, given, trained


def find_served_type(
    task: LightningModule, sample: SampleBatch, classes: int | None = None, data: LightningDataModule | None = None
) -> TaskType:
    """Return the type of a task's outputs.

    A task that states none classifies where it gives a row of numbers for a whole number as truth, one for each class:
    features and reconstructions are rows of numbers, too. What else it gives is served as it is, and so is all that a
    module with `kind = "tensors"` gives.

    Args:
        task: with its weights.
        sample: of the data, for its outputs and its truth.
        classes: of the data; None where it does not know them.
        data: whose validation labels are counted then; None leaves any number of columns a classification.
    """
    if (stated := resolve_task_type(task)) is not None:
        return stated
    plain = TensorType()
    if getattr(task, "kind", None) == plain.name:
        return plain
    x = sample.x if isinstance(sample.x, Mapping) else {"input": sample.x}
    outputs = compute_plain_outputs(task, plain, x)
    output = outputs.get(OUTPUT)
    if len(outputs) != 1 or not isinstance(output, torch.Tensor) or output.ndim != 2:
        return plain
    if sample.y.ndim != 1 or sample.y.dtype != np.int64:
        return plain
    columns = output.shape[1]
    if columns > 1 and classes is None and data is not None:
        classes = 1 + max(int(np.max(batch.y)) for batch in iterate_validation_batches(data))
    return PlainClassification() if columns > 1 and classes in (None, columns) else plain
