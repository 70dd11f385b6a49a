"""Export a task; compare and profile it in one pass over the validation samples, and time it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule

from mlscale.export.latency import one_thread
from mlscale.export.onnx_engine import Engine
from mlscale.export.onnx_export import export, served
from mlscale.export.parity import Logits, Parity, compare, torch_logits
from mlscale.export.reference_profile import Profile
from mlscale.export.servable import softmax
from mlscale.export.validation_samples import Input, Samples, input_of, validation
from mlscale.stats.timing import TimesCompared, compare_times

_BUDGET_S = 3.0  # short, as no decision depends on it: the ratio is reported with its interval


@dataclass(frozen=True)
class Measured:
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
    given: Input
    classes: int
    parity: Parity
    profile: Profile
    times: TimesCompared


def measure(task: LightningModule, data: Any, *, samples: int | None = None, model: bytes | None = None) -> Measured:
    """Export `task` and measure the result; or measure `model`, a compressed version of it.

    Args:
        task: with its weights; it stays on the CPU, in evaluation mode.
        data: the data module it was trained with, set up for validation.
        samples: number of validation samples to use; None for all.
        model: a serialised ONNX model, made of the same weights; None exports them.

    Raises:
        MLScaleError: the task gives no logits, or ONNX can't express it.
    """
    given = input_of(data)
    trained = served(task, given)
    content = export(trained, given) if model is None else model
    engine = Engine(content)
    # From the graph itself: data may not know the number of classes.
    classes = engine.run(np.zeros((1, *given.shape), given.dtype)).shape[1]
    profile = Profile(classes)

    def look(batch: Samples, logits: Logits) -> None:
        profile.add(batch.raw, softmax(logits), batch.y)

    parity = compare(torch_logits(task), engine.run, validation(data, limit=samples), look)
    first: NDArray[Any] = next(validation(data, limit=1)).raw
    # Torch is limited to the one thread that the engine has by default; else the two times would not be comparable.
    with one_thread(), torch.no_grad():
        times = compare_times(lambda: trained(torch.from_numpy(first)), lambda: engine.run(first), budget_s=_BUDGET_S)
    return Measured(content, given, classes, parity, profile, times)
