"""Summaries of raw samples as columns by name: of rows, images and tensors; numpy alone."""

from __future__ import annotations

import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.data.encoders.table_encoder import NUMBERS, TEXTS, TableEncoder
from mlscale.task_types.event_forms import SummaryColumns

MAX_NUMBERS = 1 << 18
"""The most numbers that are summarised at once: temporary arrays of that size stay in the processor's cache."""


class InputSummary(ABC):
    """From packed samples (`Encoder.pack_samples`) to columns by name.

    Attributes:
        unmeasured: columns that validation samples do not have, as these are cut in another way than a client's.
    """

    unmeasured: ClassVar[frozenset[str]] = frozenset()

    @property
    @abstractmethod
    def sample_kind(self) -> str:
        """The form of `write_samples`: json (a row), text (its bytes), or npy (an array, as numpy saves it)."""

    @abstractmethod
    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        """Return the columns of n samples, none of which is bad."""

    @abstractmethod
    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        """Return the samples of these numbers as bytes, to be stored."""


def count_samples(packed: EncodedSamples) -> int:
    """Return the number of samples."""
    return len(next(iter(packed.tensors.values()))) if packed.counts is None else len(packed.counts)


def get_fact(packed: EncodedSamples, name: str, default: float | NDArray[Any]) -> NDArray[np.float64]:
    """Return a fact of the raw samples, float64 (n,); `default` where it is not known."""
    facts: Mapping[str, NDArray[np.float64]] = packed.facts or {}
    known = facts.get(name)
    values = np.broadcast_to(np.asarray(default, np.float64), (count_samples(packed),))
    return np.array(values) if known is None else np.where(np.isnan(known), values, known)


MAX_CHANNELS = 32


@dataclass(frozen=True)
class TensorSummary(InputSummary):
    """`mean_<channel>` and `std_<channel>`; of more than 32 channels, `mean` and `std` of all values together. Where
    there are several tensors, the name of each goes before that.
    """

    sample_kind: ClassVar[str] = "npy"

    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        columns: SummaryColumns = {}
        for name, values in packed.tensors.items():
            prefix = f"{name}." if len(packed.tensors) > 1 else ""
            flat = values.reshape(len(values), -1, 1) if values.ndim < 3 else values
            if flat.shape[1] > MAX_CHANNELS:
                means, stds = compute_channel_moments(values.reshape(len(values), 1, -1))
                columns |= {f"{prefix}mean": means[:, 0], f"{prefix}std": stds[:, 0]}
                continue
            means, stds = compute_channel_moments(flat)
            columns |= {f"{prefix}mean_{channel}": means[:, channel] for channel in range(means.shape[1])}
            if flat[:1, :1].size > 1:  # a single value has no deviation
                columns |= {f"{prefix}std_{channel}": stds[:, channel] for channel in range(means.shape[1])}
        return columns

    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        return [write_arrays({name: values[number] for name, values in packed.tensors.items()}) for number in numbers]


@dataclass(frozen=True)
class ChannelSummary(InputSummary):
    """The summary of format 1, for models whose reference profile has that: mean and deviation of each channel of the
    first encoded tensor.

    Args:
        encoder: of the samples.
        is_encoded: samples arrive as the model takes them: the graph holds no part of the encoder.
        stored: the summary whose samples are stored, which are raw; None stores the encoded tensor.
    """

    encoder: Encoder
    is_encoded: bool
    stored: InputSummary | None = None

    @property
    def sample_kind(self) -> str:
        return "npy" if self.stored is None else self.stored.sample_kind

    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        means, stds = compute_channel_moments(self._get_tensor(packed))
        columns: SummaryColumns = {f"mean_{channel}": means[:, channel] for channel in range(means.shape[1])}
        return columns | {f"std_{channel}": stds[:, channel] for channel in range(means.shape[1])}

    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        if self.stored is not None:
            return self.stored.write_samples(packed, numbers)
        tensor = self._get_tensor(packed)
        return [write_arrays({"": tensor[number]}) for number in numbers]

    def _get_tensor(self, packed: EncodedSamples) -> NDArray[Any]:
        tensors = packed.tensors if self.is_encoded else self.encoder.unpack_samples(packed.tensors)
        return tensors[self.encoder.inputs[0].name]


def compute_channel_moments(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each channel of each sample, float64 (n, c), for values (n, c, …)."""
    flat = values.reshape(len(values), values.shape[1] if values.ndim > 1 else 1, -1)
    means, stds = (np.empty(flat.shape[:2]) for _ in range(2))
    step = max(1, MAX_NUMBERS // max(1, flat[0].size if len(flat) else 1))
    with np.errstate(all="ignore"):  # a client may send infinities
        for start in range(0, len(flat), step):  # as double, a full queue would take half a gigabyte
            wide = flat[start : start + step].astype(np.float64)
            means[start : start + step], stds[start : start + step] = wide.mean(-1), wide.std(-1)
    return means, stds


def write_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return an array as numpy saves it (.npy), several by name as an archive (.npz)."""
    file = io.BytesIO()
    if len(arrays) == 1:
        np.save(file, np.ascontiguousarray(next(iter(arrays.values()))), allow_pickle=False)
    else:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one
    return file.getvalue()


_COLOURS = ("red", "green", "blue")
_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's conversion to L
_STATISTICS = ("brightness", "contrast", "sharpness")


@dataclass(frozen=True)
class ImageSummary(InputSummary):
    """`brightness` and `contrast`, mean and standard deviation of the grey image; `sharpness`, the deviation of its
    Laplacian; `width` and `height` of the image that was sent; the mean of each channel: `red`, `green`, `blue`.
    """

    sample_kind: ClassVar[str] = "npy"

    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        (pixels,) = packed.tensors.values()
        channels, height, width = pixels.shape[1:]
        statistics = np.empty((len(_STATISTICS) + (channels if channels > 1 else 0), len(pixels)))
        step = max(1, MAX_NUMBERS // max(1, channels * height * width))
        with np.errstate(all="ignore"):  # arrays of a client may have infinities
            for start in range(0, len(pixels), step):
                statistics[:, start : start + step] = _measure_pixels(pixels[start : start + step])
        # A grey image has its brightness alone: the mean of its channel would be the same column twice.
        names = _COLOURS if channels == len(_COLOURS) else [f"mean_{channel}" for channel in range(channels)]
        return {
            **dict(zip(_STATISTICS, statistics, strict=False)),
            "width": get_fact(packed, "width", width),
            "height": get_fact(packed, "height", height),
            **dict(zip(names, statistics[len(_STATISTICS) :], strict=False)),
        }

    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        (pixels,) = packed.tensors.values()
        return [write_arrays({"": pixels[number]}) for number in numbers]


def _measure_pixels(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return the statistics of images (n, c, h, w), a row for each."""
    # float32 is exact for bytes, and half the memory of float64.
    wide = pixels.astype(np.float32)
    channels = wide.shape[1]
    weights = _GREY_WEIGHTS if channels == len(_GREY_WEIGHTS) else np.full(channels, 1 / channels, np.float32)
    grey = wide[:, 0] if channels == 1 else np.tensordot(weights, wide, (0, 1))
    rows = [grey.mean((1, 2)), grey.std((1, 2)), _compute_sharpness(grey)]
    return np.stack([*rows, *(wide.mean((2, 3)).T if channels > 1 else ())])


def _compute_sharpness(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the standard deviation of the 4-neighbour Laplacian of grey images (n, h, w)."""
    # Only pixels with four neighbours count: a border would look like an edge.
    if min(grey.shape[1:]) < 3:
        return np.full(len(grey), np.nan, np.float32)
    # In place: a temporary array for each neighbour would take twice the time.
    laplacian = -4 * grey[:, 1:-1, 1:-1]
    laplacian += grey[:, :-2, 1:-1]
    laplacian += grey[:, 2:, 1:-1]
    laplacian += grey[:, 1:-1, :-2]
    laplacian += grey[:, 1:-1, 2:]
    spread: NDArray[np.float32] = laplacian.std((1, 2))
    return spread


@dataclass(frozen=True)
class TableSummary(InputSummary):
    """The columns by the user's names: numbers, and categories as texts, so that a new one can be named.

    Args:
        encoder: of the rows.
    """

    sample_kind: ClassVar[str] = "json"
    encoder: TableEncoder

    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        numbers = (name for name, is_number in self._list_columns() if is_number)
        texts = (name for name, is_number in self._list_columns() if not is_number)
        columns: SummaryColumns = {}
        if NUMBERS in packed.tensors:
            columns |= zip(numbers, np.ascontiguousarray(packed.tensors[NUMBERS].T, np.float64), strict=True)
        if TEXTS in packed.tensors:
            for name, values in zip(texts, packed.tensors[TEXTS].T, strict=True):
                # The empty text is a missing value.
                columns[name] = [value or None for value in values.tolist()]
        # In the order of the table, not with all numbers first.
        return {name: columns[name] for name, _ in self._list_columns()}

    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        chosen = {name: values[list(numbers)] for name, values in packed.tensors.items()}
        columns = self.summarize_samples(EncodedSamples(chosen, {}))
        rows = zip(
            *(column if isinstance(column, list) else column.tolist() for column in columns.values()), strict=True
        )
        documents = ({name: _convert_missing(value) for name, value in zip(columns, row, strict=True)} for row in rows)
        return [json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() for document in documents]

    def _list_columns(self) -> list[tuple[str, bool]]:
        """Return the names of the columns, and whether each holds numbers."""
        return [(column.name, column.type == "number") for column in self.encoder.columns]


def _convert_missing(value: float | str | None) -> float | str | None:
    # JSON has no NaN.
    return None if isinstance(value, float) and math.isnan(value) else value
