"""Events of a classifier, as a server writes them, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.data.encoders.summaries.tensor_summary import ChannelSummary
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.events.event_rows import EventSubject
from mlscale.events.event_writer import EventWriter
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.registry import get_task_type


@cache
def build_subject(version: str, labels: tuple[str, ...] = ("a", "b", "c")) -> EventSubject:
    """A classifier of tensors, whose events have the moments of each channel."""
    summary = ChannelSummary(TensorEncoder.from_shape((1,), "float32"), is_encoded=True)
    return EventSubject(version, summary, get_task_type("classification"), AnswerNames(labels), "test")


def add_classified(
    writer: EventWriter,
    ids: Sequence[str],
    *,
    version: str,
    raw: NDArray[Any] | None = None,
    labels: Sequence[str] | None = None,
    probabilities: NDArray[np.float32] | None = None,
    latency_ms: NDArray[np.float32] | float = 0.0,
    outcome: str = "ok",
    time_us: int | None = None,
) -> bool:
    """Add events of inputs and probabilities, as `EventWriter.add_events` takes them."""
    predictions: dict[str, Any] | None = None
    if labels is not None and probabilities is not None:
        classes = probabilities.argmax(-1).astype(np.int32)
        predictions = {"predicted": list(labels), "class": classes, "confidence": probabilities.max(-1)}
    return writer.add_events(
        ids,
        subject=build_subject(version),
        samples=None if raw is None else EncodedSamples({"input": raw}, {}),
        predictions=predictions,
        latency_ms=latency_ms,
        outcome=outcome,
        time_us=time_us,
    )
