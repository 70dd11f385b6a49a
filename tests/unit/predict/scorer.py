"""Scores a table of numbers with a linear model, also in a process of its own that tests may kill; the table is in the
folder of the predictions' folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.commands.predict.rank_worker import PartEvents
from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.export.engines.engine import Port
from mlscale.predict.inputs import open_inputs
from mlscale.predict.part_files import PredictionParts, start_predictions
from mlscale.predict.score_parts import score_parts
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames, TaskType
from tests.event_writing import build_subject

ENCODER = TensorEncoder.from_shape((4,), "float32")


@dataclass(frozen=True)
class Linear:
    """Three classes of rows of four numbers."""

    seconds: float = 0.0
    task_type: TaskType = field(default_factory=lambda: get_task_type("classification"))
    names: AnswerNames = field(default_factory=lambda: AnswerNames(("a", "b", "c")))
    outputs: tuple[Port, ...] = (Port("logits", "float32", (-1, 3)),)
    encoder: Encoder = ENCODER

    @property
    def labels(self) -> Sequence[str]:
        return self.names.labels

    def pack_samples(self, raw: Sequence[Any]) -> EncodedSamples:
        return self.encoder.encode_samples(raw)

    def compute_samples(self, packed: EncodedSamples) -> Mapping[str, NDArray[Any]]:
        time.sleep(self.seconds)
        return {"logits": packed.tensors["input"] @ np.arange(12, dtype=np.float32).reshape(4, 3)}


def opened(to: Path, **changes: Any) -> tuple[Any, PredictionParts]:
    """The table beside `to`, and the parts in it."""
    inputs = open_inputs(str(to.parent / "rows.csv"), member=None, key="id", columns=())
    given: dict[str, Any] = {
        "model": {"version": "linear:v1", "digest": "d"},
        "inputs": {"spec": "rows.csv", "digest": inputs.digest, "rows": len(inputs)},
        "answers": {},
        "created": "2026-01-05T10:00:00.123+00:00",
        "part_rows": 16,
        "overwrite": False,
    }
    return inputs, start_predictions(to, **{**given, **changes})


def run(
    to: Path, rank: int = 0, world_size: int = 1, seconds: float = 0.0, events: Path | None = None
) -> PredictionParts:
    """Score what one rank is to do and has not done."""
    inputs, parts = opened(to)
    keeps = (
        PartEvents(events, "linear", build_subject("linear:v1"), parts.document["created"], "abc123")
        if events
        else None
    )
    todo = [part for part in parts.list_rank_parts(rank, world_size) if part not in parts.find_complete_parts()]
    score_parts(inputs, Linear(seconds), parts, todo, batch_size=5, workers=2, events=keeps)
    return parts
