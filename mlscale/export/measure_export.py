"""Export a task, and compare, time and profile it in one pass over the validation samples."""

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

_BUDGET_S = 3.0  # nothing is decided by it: what is not precise by then is reported with its interval


@dataclass(frozen=True)
class Measured:
    """An exported model and what is known of it.

    Attributes:
        model: the ONNX model, serialised.
        given: what one raw sample is.
        classes: how many logits it gives.
        parity: the comparison with the trained model.
        profile: what its inputs and predictions look like.
        times: of one sample on one thread: the trained model in eager mode, normalisation included, then the exported.
    """

    model: bytes
    given: Input
    classes: int
    parity: Parity
    profile: Profile
    times: TimesCompared


def measure(task: LightningModule, data: Any, *, samples: int | None = None, model: bytes | None = None) -> Measured:
    """Export `task` as it stands, or take a compressed `model` of it in place of that.

    Args:
        task: with its weights; it stays on the CPU, in evaluation mode.
        data: the data module it was trained with, set up for validation.
        samples: validation samples to look at; None for all.
        model: a serialised ONNX model, made of the same weights; None exports them.

    Raises:
        MLScaleError: the task gives no logits, or ONNX can't express it.
    """
    given = input_of(data)
    trained = served(task, given)
    content = export(trained, given) if model is None else model
    engine = Engine(content)
    classes = engine.run(np.zeros((1, *given.shape), given.dtype)).shape[1]
    profile = Profile(classes)

    def look(batch: Samples, logits: Logits) -> None:
        profile.add(batch.raw, softmax(logits), batch.y)

    parity = compare(torch_logits(task), engine.run, validation(data, limit=samples), look)
    first: NDArray[Any] = next(validation(data, limit=1)).raw
    with one_thread(), torch.no_grad():
        times = compare_times(lambda: trained(torch.from_numpy(first)), lambda: engine.run(first), budget_s=_BUDGET_S)
    return Measured(content, given, classes, parity, profile, times)
