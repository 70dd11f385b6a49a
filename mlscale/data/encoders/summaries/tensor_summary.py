"""The summary of tensors: mean and standard deviation of each channel."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.data.encoders.summaries.input_summary import MAX_NUMBERS, InputSummary, SummaryColumns

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
