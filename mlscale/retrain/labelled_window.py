"""The window: labelled samples of production, each once, split into two parts that never mix.

Events come from clients, so nothing of them is trusted: samples that do not fit the model are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.cast_tensors import cast_input
from mlscale.export.onnx_engine import Port

if TYPE_CHECKING:
    from mlscale.events.event_table import Events


@dataclass(frozen=True, eq=False)
class LabelledWindow:
    """n labelled samples, oldest first.

    Attributes:
        raw: in the shape and dtype of the model's input, (n, …).
        classes: numbers of the correct classes, int64 (n,).
        held_out: True for samples that are not trained on, but compare champion and challenger; bool (n,).
        since, until: times of the first and the last event, ISO 8601, UTC; '' where there is none.
        labelled: the number of events with a label.
        left_out: the number of them that are not among the samples, by reason.
    """

    raw: NDArray[Any]
    classes: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    since: str = ""
    until: str = ""
    labelled: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)

    def summarize_window(self) -> dict[str, Any]:
        """Return the summary of the window for the journal."""
        held_out = int(self.held_out.sum())
        return {
            "since": self.since,
            "until": self.until,
            "labelled": self.labelled,
            "samples": len(self),
            "train": len(self) - held_out,
            "held_out": held_out,
            "left_out": dict(self.left_out),
        }


def select_labelled_window(
    events: Events, port: Port, labels: Sequence[str], *, model: str, held_out: float, most: int
) -> LabelledWindow:
    """Return the latest samples that can be used for training.

    The same input counts once, with its latest label: a copy adds no information, and must not be on both sides of the
    split. The side follows from the bytes of the input and the model's name only, so it never changes in later cycles.

    Args:
        events: with labels and samples (`EventStore.joined(…, samples=True)`), oldest first.
        port: the input of the model.
        labels: names of its classes by number.
        model: its name.
        held_out: the share that is not trained on, between 0 and 1.
        most: the most samples.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    columns = [events.table["sample"].to_pylist(), events.table["sample_kind"].to_pylist(), events.truth.tolist()]
    taken: dict[bytes, tuple[int, NDArray[Any], int]] = {}
    left_out: Counter[str] = Counter()
    # From the newest: the latest label of an input wins, and older events are left out beyond `most`.
    for row in reversed(range(len(events))):
        sample, kind, truth = (column[row] for column in columns)
        raw = None if sample is None else _decode_input(sample, kind, port)
        if raw is None:
            left_out["without a sample" if sample is None else "another shape or dtype"] += 1
        elif not isinstance(truth, str) or truth not in numbers:
            left_out["a label that the model does not have"] += 1
        elif (digest := _compute_input_digest(raw, model)) in taken:
            left_out["seen before"] += 1
        elif len(taken) == most:
            left_out["older than the latest"] += 1
        else:
            taken[digest] = row, raw, numbers[truth]
    # Back to oldest first.
    selected = list(reversed(taken.items()))
    times = events.time
    return LabelledWindow(
        raw=np.stack([raw for _, (_, raw, _) in selected]) if selected else np.zeros((0, *port.shape[1:]), port.dtype),
        classes=np.array([number for _, (_, _, number) in selected], np.int64),
        # The 8 bytes of a digest are uniform from 0 to 2**64 - 1.
        held_out=np.array([int.from_bytes(digest) < held_out * 2**64 for digest, _ in selected], bool),
        since=_format_time(times[selected[0][1][0]]) if selected else "",
        until=_format_time(times[selected[-1][1][0]]) if selected else "",
        labelled=len(events),
        left_out=dict(left_out),
    )


def _decode_input(sample: bytes, kind: str, port: Port) -> NDArray[Any] | None:
    """Return one input in the dtype of the model; None where it does not fit."""
    from mlscale.events.event_table import read_sample

    try:
        # Events may come from anybody: what is not an array of the shape is left out.
        raw: NDArray[Any] = cast_input(np.asarray(read_sample(kind, sample))[None], port)
    except (MLScaleError, TypeError, ValueError):
        return None
    one: NDArray[Any] = raw[0]
    return one


def _compute_input_digest(raw: NDArray[Any], model: str) -> bytes:
    # Keyed by the model's name, so that two models split the same inputs independently. A key has 64 bytes at most.
    return blake2b(raw.tobytes(), digest_size=8, key=model.encode()[:64], person=b"mlscale retrain").digest()


def _format_time(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, 'ms')}Z"
