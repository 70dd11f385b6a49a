"""Events as a server writes them, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.data.encoders.summaries.input_summary import TensorSummary
from mlscale.events.event_rows import EventSubject
from mlscale.events.event_writer import EventWriter
from mlscale.export.event_subject import build_event_subject
from mlscale.export.servable import Servable
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.registry import get_task_type


@cache
def build_subject(version: str, labels: tuple[str, ...] = ("a", "b", "c")) -> EventSubject:
    """A classifier of tensors, whose events have the moments of each channel."""
    return EventSubject(version, TensorSummary(), get_task_type("classification"), AnswerNames(labels), "test")


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
    groups: Sequence[str | None] | None = None,
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
        groups=groups,
    )


def add_answers(
    writer: EventWriter,
    servable: Servable,
    ids: Sequence[str],
    raw: Sequence[Any],
    *,
    version: str,
    latency_ms: NDArray[np.float32] | float = 0.0,
    time_us: int | None = None,
    groups: Sequence[str | None] | None = None,
) -> None:
    """Add events of what a servable predicts of raw samples, none of which is bad."""
    packed = servable.pack_samples(raw)
    predictions = servable.task_type.build_predictions(servable.compute_samples(packed), servable.labels)
    subject = build_event_subject(servable, version, "test")
    writer.add_events(
        ids,
        subject=subject,
        samples=packed,
        predictions=predictions,
        latency_ms=latency_ms,
        time_us=time_us,
        groups=groups,
    )
