"""Read real samples for calibration: of the training split, so that accuracy is measured on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities.seed import isolate_rng

from mlscale.data.images.labelled_images import ImageData
from mlscale.data.order.bad_samples import BadSample
from mlscale.errors import MLScaleError
from mlscale.export.validation_samples import iterate_loader_batches
from mlscale.train.checkpoint import random_states as generators

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

SPLIT = "train"


def read_calibration_samples(data: LightningDataModule, count: int) -> NDArray[Any]:
    """Return raw training samples, at most `count`, (n, …) as a client sends them; the same ones every time.

    Images are spread evenly over the split, as they are stored: neither augmented nor normalised. A user's data module
    gives the first batches of its training loader, its shuffling seeded.

    Raises:
        MLScaleError: there is none that can be read.
    """
    raw = _read_image_samples(data, count) if isinstance(data, ImageData) else _read_loader_samples(data, count)
    if not raw:
        raise MLScaleError(
            "no training samples found",
            where="data.train",
            why="int8 is calibrated on them",
            fix="data.train=<samples that can be read>",
        )
    return np.stack(raw)


def _read_image_samples(data: ImageData, count: int) -> list[NDArray[Any]]:
    decoded, raw = data.get_decoded_split(SPLIT), []
    # Evenly over the split, since stored samples may be sorted by class. `unique`, where there are fewer than `count`.
    for row in np.unique(np.linspace(0, len(decoded) - 1, count).astype(np.int64)).tolist():
        try:
            raw.append(decoded.get_sample(row))
        except BadSample:
            if not data.policy.skip:
                raise
    return raw


def _read_loader_samples(data: LightningDataModule, count: int) -> list[NDArray[Any]]:
    raw: list[NDArray[Any]] = []
    # The loader's shuffling draws from the global generators, which a run still needs for its own.
    with isolate_rng(include_cuda=False):
        generators.seed_global_generators(0)
        for samples in iterate_loader_batches(data.train_dataloader(), SPLIT):
            raw.extend(samples.raw[: count - len(raw)])  # an array's rows, one by one
            if len(raw) >= count:
                break
    return raw
