"""Read real samples for calibration: of the training split, so that accuracy is measured on others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities.seed import isolate_rng

from mlscale.data.images.labelled_images import ImageData
from mlscale.data.order.bad_samples import BadSample
from mlscale.errors import MLScaleError
from mlscale.export.validation_samples import as_given
from mlscale.train.checkpoint import random_states as generators

SPLIT = "train"


def calibration(data: Any, count: int) -> NDArray[Any]:
    """Return raw training samples, at most `count`, (n, …) as a client sends them; the same ones every time.

    Images are spread evenly over the split, as they are stored: neither augmented nor normalised. A user's data module
    gives the first batches of its training loader, its shuffling seeded.

    Raises:
        MLScaleError: there is none that can be read.
    """
    raw = _images(data, count) if isinstance(data, ImageData) else _others(data, count)
    if not raw:
        raise MLScaleError(
            "there are no training samples",
            where="data.train",
            why="int8 is calibrated on them",
            fix="data.train=<samples that can be read>",
        )
    return np.stack(raw)


def _images(data: ImageData, count: int) -> list[NDArray[Any]]:
    decoded, raw = data.decoded(SPLIT), []
    # Evenly over the split, since stored samples may be sorted by class. `unique`, where there are fewer than `count`.
    for row in np.unique(np.linspace(0, len(decoded) - 1, count).astype(np.int64)).tolist():
        try:
            raw.append(decoded.sample(row))
        except BadSample:
            if not data.policy.skip:
                raise
    return raw


def _others(data: Any, count: int) -> list[NDArray[Any]]:
    raw: list[NDArray[Any]] = []
    # The loader's shuffling draws from the global generators, which a run still needs for its own.
    with isolate_rng(include_cuda=False):
        generators.seed(0)
        for samples in as_given(data.train_dataloader(), SPLIT):
            raw.extend(samples.raw[: count - len(raw)])  # an array's rows, one by one
            if len(raw) >= count:
                break
    return raw
