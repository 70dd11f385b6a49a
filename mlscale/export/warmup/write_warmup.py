"""Write `warmup/` of a servable: samples with its answers.

Choose the samples that a servable is warmed up with: of several classes, and what is particular among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import PRIVATE_FOLDER, write_bytes, write_json
from mlscale.contracts import get_format_tag
from mlscale.data.decoding.image_files import find_image_suffix
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import CategoryColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder, convert_to_bytes
from mlscale.export.validation_samples import SampleBatch
from mlscale.export.warmup.answer_comparison import SAME_PIXELS, answer_sample, iterate_numbers
from mlscale.export.warmup.warmup_requests import REQUESTS, store_sample

if TYPE_CHECKING:
    from mlscale.export.servable import Servable

TOLERANCE, INT8_TOLERANCE = 1e-3, 5e-2
"""Of a number, as a share of the largest one of its kind: other processors sum up in another order; of 8 bits they also
saturate elsewhere."""
_MOST, _NOISE_DRAWS = 8, 8


def write_warmup(
    folder: Path, servable: Servable, samples: Sequence[tuple[str, Any]], *, tolerance: float = TOLERANCE
) -> int:
    """Write requests with the answers of the servable, 8 at most, none for no folder; return their number.

    A sample is left out whose answer is not finite, or whose prediction a rounding error could change.

    Args:
        folder: it is created.
        servable: with a model and an encoder; its own folder may be elsewhere.
        samples: names and raw samples; the first that suit are taken.
        tolerance: see `WarmupRequests`.

    Raises:
        MLScaleError: the graph fails, or the folder can't be written to (exit code 5).
    """
    entries: list[dict[str, Any]] = []
    contents: dict[str, bytes] = {}
    for key, sample in samples:
        if len(entries) == _MOST:
            break
        answer = answer_sample(servable, sample)
        if isinstance(answer, dict) and not (
            all(math.isfinite(number) for _, number in iterate_numbers(answer))
            and _is_clear(servable, sample, tolerance)
        ):
            continue
        stored, content = store_sample(sample, len(entries), is_text=servable.encoder.kind in ("text", "document"))
        if content is not None:
            contents[stored["file"]] = content
        entries.append({"key": key, **stored, "answer" if isinstance(answer, dict) else "error": answer})
    if entries:
        folder.mkdir(mode=PRIVATE_FOLDER)
        for name, content in contents.items():
            write_bytes(folder / name, content)
        write_json(folder / REQUESTS, {"format": get_format_tag("warmup"), "tolerance": tolerance, "requests": entries})
    return len(entries)


def _is_clear(servable: Servable, sample: object, tolerance: float) -> bool:
    """Return whether the prediction stays the same where outputs change by the tolerance."""
    outputs = servable.compute_samples(servable.pack_samples([sample]))
    # A fixed seed, so that two exports of one model choose the same samples.
    random = np.random.default_rng(0)
    for _ in range(_NOISE_DRAWS):
        changed = {name: _add_noise(value, tolerance, random) for name, value in outputs.items()}
        same = servable.task_type.compare_predictions(outputs, changed)
        if same is not None and not same.min() >= SAME_PIXELS:
            return False
    return True


def _add_noise(values: NDArray[Any], share: float, random: np.random.Generator) -> NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    size = share * max(1.0, float(np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max(initial=0)))
    noisy: NDArray[Any] = values + random.choice([-size, size], values.shape).astype(values.dtype)
    return noisy


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
