"""The summary of an image: light, detail, size and colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.data.encoders.summaries.input_summary import MAX_NUMBERS, InputSummary, SummaryColumns, get_fact
from mlscale.data.encoders.summaries.tensor_summary import write_arrays

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
