"""Read real samples for calibration: of the training split, so that the metric is measured on others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.seed import isolate_rng

from mlscale.data.array_data import MemoryData
from mlscale.data.encoders.encoder import INPUT
from mlscale.data.images.image_modules import ImageData
from mlscale.data.order.bad_samples import BadSample
from mlscale.errors import MLScaleError
from mlscale.export.validation_samples import encode_as_trained, iterate_loader_batches
from mlscale.train.checkpoint import random_states as generators

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

SPLIT = "train"
Tensors = Mapping[str, NDArray[Any]]


def read_calibration_samples(data: LightningDataModule, count: int) -> Tensors:
    """Return encoded training samples, at most `count`, as a model takes them, (n, …) by name; always the same ones.

    Images, rows and texts are spread evenly over the split, as they are stored: neither augmented nor normalised. A
    user's data module gives the first batches of its training loader, its shuffling seeded.

    Raises:
        MLScaleError: there is none that can be read.
    """
    if isinstance(data, ImageData):
        tensors = _read_image_samples(data, count)
    elif isinstance(data, MemoryData):
        tensors = _read_memory_samples(data, count)
    else:
        tensors = _read_loader_samples(data, count)
    if not tensors:
        raise MLScaleError(
            "no training samples found",
            where="data.train",
            why="int8 is calibrated on them",
            fix="data.train=<samples that can be read>",
        )
    return tensors


def _read_image_samples(data: ImageData, count: int) -> Tensors:
    decoded, raw = data.get_decoded_split(SPLIT), []
    for row in _spread_rows(len(decoded), count).tolist():
        try:
            raw.append(decoded.get_sample(row))
        except BadSample:
            if not data.policy.skip:
                raise
    return {INPUT: np.stack(raw)} if raw else {}


def _read_memory_samples(data: MemoryData, count: int) -> Tensors:
    split = data.get_rows(SPLIT)
    rows = np.setdiff1d(_spread_rows(len(split), count), list(split.bad))
    if not len(rows):
        return {}
    x, y = split.take_samples(rows)
    return encode_as_trained(data, SPLIT, rows, torch.from_numpy(x), y)


def _read_loader_samples(data: LightningDataModule, count: int) -> Tensors:
    batches: list[Tensors] = []
    total = 0
    # The loader's shuffling draws from the global generators, which a run still needs for its own.
    with isolate_rng(include_cuda=False):
        generators.seed_global_generators(0)
        for samples in iterate_loader_batches(data.train_dataloader(), SPLIT):
            batches.append(samples.take_first(count - total).tensors)
            total += len(samples.y)
            if total >= count:
                break
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]} if total else {}


def _spread_rows(size: int, count: int) -> NDArray[np.int64]:
    """Return numbers of samples, evenly over the split, since stored samples may be sorted by class."""
    # `unique`, where there are fewer than `count`.
    return np.unique(np.linspace(0, size - 1, count).astype(np.int64)) if size else np.zeros(0, np.int64)
