"""A servable in memory, ready to answer: warmed up, its speed measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.export.servable import Servable, load, softmax
from mlscale.export.servable_trial import raise_unless_it_computes

_INLINE_ONE_S, _INLINE_BATCH_S = 0.001, 0.005
"""A thread costs a sample 0.1 ms, and an answer that is computed in the loop delays the others by its own time."""
_ROUNDS, _ENOUGH_S = 5, 0.5
_JSON_BYTES, _JSON_MORE, _FEW_VALUES = {"uint8": 8}, 64 << 10, 16 << 10
"""Bytes of a number in JSON by the input's type, bytes of the rest of a request, numbers that any model may be sent."""
_READ_BYTES = 128
"""Of memory that a number takes while it is read: an object, places in lists, and in arrays."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a version says of n samples.

    Attributes:
        logits, probabilities: float32 (n, classes).
        classes: int64 (n,).
        labels: their names, (n,).
        finite: whether all probabilities of a sample are numbers, (n,).
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    classes: NDArray[np.int64]
    labels: list[str]
    finite: NDArray[np.bool_]

    def __getitem__(self, rows: slice) -> Outputs:
        return Outputs(
            self.logits[rows], self.probabilities[rows], self.classes[rows], self.labels[rows], self.finite[rows]
        )


@dataclass(frozen=True, eq=False)
class Model:
    """A version that answers.

    Attributes:
        servable: what computes.
        name: the model's.
        version: what answers call it, such as `resnet:v7`.
        one_s, batch_s: seconds that one sample and the largest batch take.
        max_batch: rows that are computed at once.
    """

    servable: Servable
    name: str
    version: str
    one_s: float
    batch_s: float
    max_batch: int

    @cached_property
    def inline(self) -> bool:
        """Whether it is computed where requests are read: no thread is worth it."""
        return self.one_s <= _INLINE_ONE_S and self.batch_s <= _INLINE_BATCH_S

    @cached_property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.servable.input.shape[1:]

    @cached_property
    def sample_bytes(self) -> int:
        """Of one raw sample."""
        return int(np.prod(self.sample_shape)) * np.dtype(self.servable.input.dtype).itemsize

    @cached_property
    def json_values(self) -> int:
        """How many numbers a long request in JSON may hold: those of a full batch."""
        return max(self.max_batch * int(np.prod(self.sample_shape)), _FEW_VALUES)

    @cached_property
    def json_bytes(self) -> int:
        """How long a request in JSON may be: a full batch, its numbers written with all their digits."""
        return self.json_values * _JSON_BYTES.get(self.servable.input.dtype, 24) + _JSON_MORE

    @cached_property
    def json_memory_bytes(self) -> int:
        """How much memory reading a request in JSON may take, besides copies of its text."""
        return self.json_values * _READ_BYTES

    @cached_property
    def portable(self) -> Model:
        """The same without what computes: for reading and writing requests in another process."""
        document = {"preprocessing": self.servable.document["preprocessing"]}
        servable = replace(self.servable, document=document, engine=None)  # type: ignore[arg-type]
        return replace(self, servable=servable)

    def compute(self, raw: NDArray[Any]) -> Outputs:
        """Answers for n samples, (n, …), at most `max_batch` at once.

        Raises:
            MLScaleError: the graph does not compute for them.
        """
        parts = [self.servable.engine.run(raw[at : at + self.max_batch]) for at in range(0, len(raw), self.max_batch)]
        logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
        with np.errstate(invalid="ignore"):  # a model may say NaN; it is told to the client
            probabilities = softmax(logits)
        classes = probabilities.argmax(-1)
        names = self.servable.labels
        labels = [names[number] for number in classes.tolist()]
        finite = np.asarray(np.isfinite(probabilities).all(axis=-1))
        return Outputs(logits, probabilities, classes, labels, finite)


def load_model(folder: Path, *, name: str, version: str, threads: int, max_batch: int) -> Model:
    """Read, verify, try, warm up and measure a servable.

    Raises:
        MLScaleError: it is none, damaged, or does not compute, or not what its document states.
    """
    servable = load(folder, threads=threads)
    raise_unless_it_computes(servable)
    draft = Model(servable, name, version, 0.0, 0.0, max_batch)
    one, many = (np.zeros((rows, *draft.sample_shape), servable.input.dtype) for rows in (1, max_batch))
    return Model(
        servable, name, version, _seconds(lambda: draft.compute(one)), _seconds(lambda: draft.compute(many)), max_batch
    )


def _seconds(call: Callable[[], object]) -> float:
    """The median time of a few calls after a first one, which sets up memory; fewer calls where they are long."""
    begin = time.perf_counter()
    call()
    times: list[float] = []
    while not times or (len(times) < _ROUNDS and time.perf_counter() - begin < _ENOUGH_S):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)
