"""A servable loaded for serving: verified, warmed up, its speed measured."""

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

from mlscale.export.servable import Servable, compute_softmax, load
from mlscale.export.servable_trial import raise_unless_it_computes

_INLINE_ONE_S, _INLINE_BATCH_S = 0.001, 0.005
"""Seconds of one sample and of a full batch up to which a model runs in the event loop: a thread costs 0.1 ms a sample,
a model in the loop delays all others by its own time."""
_ROUNDS, _ENOUGH_S = 5, 0.5
_JSON_BYTES, _JSON_MORE, _FEW_VALUES = {"uint8": 8}, 64 << 10, 16 << 10
"""Bytes of a number in JSON by the input's dtype, bytes of the rest of a request, numbers that every model accepts."""
_READ_BYTES = 128
"""Bytes of memory that a number takes while it is parsed: an object, and its slots in lists and arrays."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of a version for n samples.

    Attributes:
        logits, probabilities: float32 (n, classes).
        classes: index of the likeliest class, int64 (n,).
        labels: names of these classes, (n,).
        finite: True where all probabilities of a sample are finite, bool (n,).
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
class ServedModel:
    """A loaded version.

    Attributes:
        servable: computes the logits.
        name: the name of the model.
        version: its name in responses, such as `resnet:v7`.
        one_s, batch_s: seconds that one sample and the largest batch take.
        max_batch: the most rows that are computed at once.
    """

    servable: Servable
    name: str
    version: str
    one_s: float
    batch_s: float
    max_batch: int

    @cached_property
    def inline(self) -> bool:
        """True if the model is so fast that it runs in the event loop rather than in a thread."""
        return self.one_s <= _INLINE_ONE_S and self.batch_s <= _INLINE_BATCH_S

    @cached_property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.servable.input.shape[1:]

    @cached_property
    def sample_bytes(self) -> int:
        """The bytes of one raw sample."""
        return int(np.prod(self.sample_shape)) * np.dtype(self.servable.input.dtype).itemsize

    @cached_property
    def json_values(self) -> int:
        """The most numbers that a long JSON request may hold: those of a full batch."""
        return max(self.max_batch * int(np.prod(self.sample_shape)), _FEW_VALUES)

    @cached_property
    def json_bytes(self) -> int:
        """The most bytes of a JSON request: a full batch, its numbers written with all their digits."""
        return self.json_values * _JSON_BYTES.get(self.servable.input.dtype, 24) + _JSON_MORE

    @cached_property
    def json_memory_bytes(self) -> int:
        """The most bytes of memory that parsing a JSON request may take, without copies of its text."""
        return self.json_values * _READ_BYTES

    @cached_property
    def portable(self) -> ServedModel:
        """The same model without its engine: for parsing and encoding requests in another process."""
        # Only `preprocessing` is read there, and the document is pickled with each call.
        document = {"preprocessing": self.servable.document["preprocessing"]}
        servable = replace(self.servable, document=document, engine=None)  # type: ignore[arg-type]
        return replace(self, servable=servable)

    def compute(self, raw: NDArray[Any]) -> Outputs:
        """Compute n samples, (n, …), at most `max_batch` at once.

        Raises:
            MLScaleError: the graph fails on them.
        """
        parts = [self.servable.engine.run(raw[at : at + self.max_batch]) for at in range(0, len(raw), self.max_batch)]
        logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
        with np.errstate(invalid="ignore"):  # a model may return NaN, which the client is sent
            probabilities = compute_softmax(logits)
        classes = probabilities.argmax(-1)
        # The name of the likeliest class is looked up here once; both protocols and the events need it.
        names = self.servable.labels
        labels = [names[number] for number in classes.tolist()]
        finite = np.asarray(np.isfinite(probabilities).all(axis=-1))
        return Outputs(logits, probabilities, classes, labels, finite)


def load_model(folder: Path, *, name: str, version: str, threads: int, max_batch: int) -> ServedModel:
    """Read, verify, try out, warm up and measure a servable.

    Raises:
        MLScaleError: it is not a servable, is corrupt, does not compute, or does not match its document.
    """
    servable = load(folder, threads=threads)
    raise_unless_it_computes(servable)
    # Without its times, which are not known yet: `compute` does not use them.
    draft = ServedModel(servable, name, version, 0.0, 0.0, max_batch)
    one, many = (np.zeros((rows, *draft.sample_shape), servable.input.dtype) for rows in (1, max_batch))
    return ServedModel(
        servable,
        name,
        version,
        _measure_seconds(lambda: draft.compute(one)),
        _measure_seconds(lambda: draft.compute(many)),
        max_batch,
    )


def _measure_seconds(call: Callable[[], object]) -> float:
    """Return the median seconds of a few calls after a warm-up call; fewer calls where they are slow."""
    # The first call allocates memory in onnxruntime for this batch size, so it is not one of the times.
    begin = time.perf_counter()
    call()
    times: list[float] = []
    while not times or (len(times) < _ROUNDS and time.perf_counter() - begin < _ENOUGH_S):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)
