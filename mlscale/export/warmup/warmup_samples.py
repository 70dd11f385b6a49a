"""Choose the samples that a servable is warmed up with: of several classes, and what is particular among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mlscale.data.decoding.image_files import find_image_suffix
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import CategoryColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder, convert_to_bytes
from mlscale.export.validation_samples import SampleBatch

_MOST_BYTES = 1 << 22
"""Of a sample's file: a servable is copied to other machines."""
_PARTICULAR, _ORDINARY = 3, 16


class WarmupSampler:
    """Collects candidates in a pass over validation samples. `write_warmup` takes the first that suit.

    Args:
        encoder: of the samples.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._refused: list[tuple[str, Any]] = []
        self._particular: dict[str, tuple[str, Any]] = {}
        self._ordinary: list[tuple[bool, str, Any]] = []
        self._classes: set[int] = set()
        self._count = 0

    @property
    def samples(self) -> list[tuple[str, Any]]:
        """Names and raw samples: one that is refused, particular ones, then one of each class, then others."""
        # A stable sort: the first of each class, then the rest, both in the order of the data.
        ordinary = sorted(self._ordinary, key=lambda item: not item[0])
        return [*self._refused, *self._particular.values(), *((key, sample) for _, key, sample in ordinary)]

    def add_batch(self, batch: SampleBatch) -> None:
        """Look for samples in a batch."""
        classes = batch.y.tolist() if batch.y.ndim == 1 and batch.y.dtype.kind in "iu" else [None] * len(batch.y)
        for row, (sample, number) in enumerate(zip(batch.samples, classes, strict=True)):
            self._count += 1
            if not _is_small(sample):
                continue
            key = batch.keys[row] if batch.keys else f"sample {self._count}"
            if not self._refused and (refused := _spoil_sample(sample, self._encoder)) is not None:
                self._refused.append(refused)
            trait = next(iter(_list_traits(sample, self._encoder)), None)
            if trait is not None and trait not in self._particular and len(self._particular) < _PARTICULAR:
                self._particular[trait] = (f"{key}, {trait}", sample)
            elif len(self._ordinary) < _ORDINARY or (number is not None and number not in self._classes):
                self._add_ordinary(key, sample, number)

    def _add_ordinary(self, key: str, sample: object, number: int | None) -> None:
        is_new = number is not None and number not in self._classes
        # Of many classes, as many as there is room for.
        if is_new and len(self._classes) >= _ORDINARY:
            return
        if number is not None:
            self._classes.add(number)
        self._ordinary.append((is_new, key, sample))


def _is_small(sample: object) -> bool:
    """Return whether a sample may be stored; an empty text is none."""
    if isinstance(sample, bytes | str):
        return 0 < len(sample) <= _MOST_BYTES
    arrays = sample.values() if isinstance(sample, Mapping) else [sample]
    return sum(value.nbytes for value in arrays if isinstance(value, np.ndarray)) <= _MOST_BYTES


def _spoil_sample(sample: object, encoder: Encoder) -> tuple[str, Any] | None:
    """Return a sample that the encoder refuses, with its name; None where none is common."""
    if isinstance(encoder, TableEncoder):
        return "a row without columns", {}
    if isinstance(encoder, TextEncoder | DocumentEncoder):
        return "an empty text", ""
    # Arrays are stored images, too, and half of one has another shape: no fault that clients make.
    if isinstance(encoder, ImageEncoder) and isinstance(sample, bytes):
        return "half of an image", sample[: len(sample) // 2]
    return None


def _list_traits(sample: Any, encoder: Encoder) -> Iterator[str]:
    """Yield what is particular about a sample."""
    if isinstance(encoder, TableEncoder):
        for column in encoder.columns:
            value = sample.get(column.name)
            if value is None or value == "":
                yield f"without a value of {column.name}"
            elif isinstance(column, CategoryColumn) and column.read_value(value) not in column.positions:
                yield f"with an unseen {column.name}"
    elif isinstance(encoder, TextEncoder | DocumentEncoder):
        # The length counts in bytes, and a letter may be several of them.
        content = convert_to_bytes(sample)
        if len(content) > encoder.length:
            yield "longer than the model reads" if isinstance(encoder, TextEncoder) else "of several windows"
        if not content.isascii():
            yield "not ASCII"
    elif isinstance(sample, bytes):
        yield f"as {find_image_suffix(sample)}"
