"""The window: labelled samples out of production, each once, in two parts that never mix.

Anybody may have sent an event, so nothing of one is taken for granted: what does not fit the model is left out and
counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.servable import Port, accepted


@dataclass(frozen=True, eq=False)
class Window:
    """n labelled samples, oldest first.

    Attributes:
        raw: as the model takes them, (n, …) of its input's dtype.
        classes: numbers of the right classes, int64 (n,).
        held_out: what is kept from training, to compare champion and challenger on; bool (n,).
        since, until: times of the first and the last event, ISO 8601, UTC; '' where there is none.
        labelled: events with a label that were looked at.
        left_out: how many of them are not among the samples, by reason.
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

    def document(self) -> dict[str, Any]:
        """What the journal keeps of it."""
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


def window(events: Any, port: Port, labels: Sequence[str], *, model: str, held_out: float, most: int) -> Window:
    """The latest samples that can be learned from.

    The same input counts once, with the label it was given last: it tells no more the second time, and must not stand
    on both sides. Which side it is on follows from its bytes and the model's name alone: it never changes in later
    turns.

    Args:
        events: with labels and samples (`EventStore.joined(…, samples=True)`), oldest first.
        port: what the model takes.
        labels: names of its classes by number.
        model: its name.
        held_out: the share that is kept from training, between 0 and 1.
        most: samples, at most.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    columns = [events.table[name].to_pylist() for name in ("sample", "dtype", "shape", "truth")]
    taken: dict[bytes, tuple[int, NDArray[Any], int]] = {}
    left_out: Counter[str] = Counter()
    for row in reversed(range(len(events))):
        sample, dtype, shape, truth = (column[row] for column in columns)
        raw = None if sample is None else _read(sample, dtype, shape, port)
        if raw is None:
            left_out["without a sample" if sample is None else "another shape or dtype"] += 1
        elif truth not in numbers:
            left_out["a label that the model does not have"] += 1
        elif (digest := _digest(raw, model)) in taken:
            left_out["seen before"] += 1
        elif len(taken) == most:
            left_out["older than the latest"] += 1
        else:
            taken[digest] = row, raw, numbers[truth]
    kept = list(reversed(taken.items()))
    times = events.time
    return Window(
        raw=np.stack([raw for _, (_, raw, _) in kept]) if kept else np.zeros((0, *port.shape[1:]), port.dtype),
        classes=np.array([number for _, (_, _, number) in kept], np.int64),
        held_out=np.array([int.from_bytes(digest) < held_out * 2**64 for digest, _ in kept], bool),
        since=_iso(times[kept[0][1][0]]) if kept else "",
        until=_iso(times[kept[-1][1][0]]) if kept else "",
        labelled=len(events),
        left_out=dict(left_out),
    )


def _read(sample: bytes, dtype: str, shape: Sequence[int], port: Port) -> NDArray[Any] | None:
    """One input in the dtype of the model; None where it does not fit."""
    try:
        raw: NDArray[Any] = accepted(np.frombuffer(sample, np.dtype(dtype)).reshape(1, *shape), port)
    except (MLScaleError, TypeError, ValueError):
        return None
    one: NDArray[Any] = raw[0]
    return one


def _digest(raw: NDArray[Any], model: str) -> bytes:
    return blake2b(raw.tobytes(), digest_size=8, key=model.encode()[:64], person=b"mlscale retrain").digest()


def _iso(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, 'ms')}Z"
