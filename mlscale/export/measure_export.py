"""Export a task; compare and profile it in one pass over the validation samples, and time it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule, LightningModule

from mlscale.export.latency import limit_torch_threads
from mlscale.export.onnx_engine import OnnxEngine
from mlscale.export.onnx_export import build_normalised_task, export_onnx
from mlscale.export.parity import Logits, Parity, build_logits_function, compare_logits
from mlscale.export.reference_profile import ProfileBuilder
from mlscale.export.servable import compute_softmax
from mlscale.export.validation_samples import (
    SampleFormat,
    ValidationBatch,
    describe_sample_format,
    iterate_validation_batches,
)
from mlscale.stats.timing import TimesCompared, compare_times

_BUDGET_S = 3.0  # short, as no decision depends on it: the ratio is reported with its interval


@dataclass(frozen=True)
class ExportMeasurement:
    """An exported model and its measurements.

    Attributes:
        model: the ONNX model, serialised.
        given: the format of one raw sample.
        classes: the number of logits.
        parity: the comparison with the trained model.
        profile: statistics of its inputs and predictions.
        times: of one sample on one thread: the trained model in eager mode, normalisation included, then the exported.
    """

    model: bytes
    given: SampleFormat
    classes: int
    parity: Parity
    profile: ProfileBuilder
    times: TimesCompared


def export_and_measure(
    task: LightningModule, data: LightningDataModule, *, samples: int | None = None, model: bytes | None = None
) -> ExportMeasurement:
    """Export `task` and measure the result; or measure `model`, a compressed version of it.

    Args:
        task: with its weights; it stays on the CPU, in evaluation mode.
        data: the data module it was trained with, set up for validation.
        samples: number of validation samples to use; None for all.
        model: a serialised ONNX model, made of the same weights; None exports them.

    Raises:
        MLScaleError: the task gives no logits, or ONNX can't express it.
    """
    given = describe_sample_format(data)
    trained = build_normalised_task(task, given)
    content = export_onnx(trained, given) if model is None else model
    engine = OnnxEngine(content)
    # From the graph itself: data may not know the number of classes.
    classes = engine.run(np.zeros((1, *given.shape), given.dtype)).shape[1]
    profile = ProfileBuilder(classes)

    def add_to_profile(batch: ValidationBatch, logits: Logits) -> None:
        profile.add_batch(batch.raw, compute_softmax(logits), batch.y)

    parity = compare_logits(
        build_logits_function(task), engine.run, iterate_validation_batches(data, limit=samples), add_to_profile
    )
    first: NDArray[Any] = next(iterate_validation_batches(data, limit=1)).raw
    # Torch is limited to the one thread that the engine has by default; else the two times would not be comparable.
    with limit_torch_threads(), torch.no_grad():
        times = compare_times(lambda: trained(torch.from_numpy(first)), lambda: engine.run(first), budget_s=_BUDGET_S)
    return ExportMeasurement(content, given, classes, parity, profile, times)
