"""Read validation samples in two forms: raw, as a client sends them, and preprocessed, as in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlscale.data.images.labelled_images import ImageData
from mlscale.errors import MLScaleError
from mlscale.tasks.batch import unpack_batch

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


@dataclass(frozen=True)
class SampleFormat:
    """The format of one sample before any preprocessing.

    Attributes:
        dtype: uint8 or float32.
        shape: of one sample; (channels, height, width) for images.
        mean: of each channel, float64, subtracted before the model sees it; empty where nothing is normalised.
        std: of each channel, divided by after that.
        image_size: side of the square, pixels, that stored images were resized to; None where they were not.
        labels: the classes' names by number; None where they have none.
        decode_version: of the decoder of stored images; None where there are none.
        max_pixels: largest number of pixels of a stored image.
    """

    dtype: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    image_size: int | None = None
    labels: tuple[str, ...] | None = None
    decode_version: int | None = None
    max_pixels: int | None = None


class ValidationBatch(NamedTuple):
    """A batch of n validation samples.

    Attributes:
        raw: as a client sends them, (n, …) of the input's dtype.
        x: the same samples as training and evaluation pass them to the model, (n, …).
        y: class numbers, int64 (n,).
    """

    raw: NDArray[Any]
    x: Tensor
    y: NDArray[np.int64]


def describe_sample_format(data: LightningDataModule) -> SampleFormat:
    """Return the format of a data module's samples; `data` has been prepared and set up for validation."""
    if isinstance(data, ImageData):
        facts, shape = data.facts(), data.get_decoded_split("val").shape
        return SampleFormat(
            shape.dtype.name,
            (shape.channels, shape.height, shape.width),
            facts.mean,
            facts.std,
            data.image_size,
            facts.class_names,
            facts.decode_version,
            facts.max_pixels,
        )
    # A user's data module normalises by itself: the samples of its loader are what the model takes and a client sends.
    first = next(iterate_validation_batches(data, limit=1))
    return SampleFormat(first.raw.dtype.name, first.raw.shape[1:])


def iterate_validation_batches(data: LightningDataModule, *, limit: int | None = None) -> Iterator[ValidationBatch]:
    """Yield the validation samples in their own order, each once; those that could not be read are left out.

    Args:
        data: the data module.
        limit: largest number of samples; None for all.

    Raises:
        MLScaleError: there is none, or there are several validation loaders.
    """
    count = 0
    for samples in (
        _iterate_image_batches(data)
        if isinstance(data, ImageData)
        else iterate_loader_batches(data.val_dataloader(), "validation")
    ):
        remaining = len(samples.y) if limit is None else limit - count
        if len(samples.y) > remaining:
            samples = ValidationBatch(samples.raw[:remaining], samples.x[:remaining], samples.y[:remaining])
        count += len(samples.y)
        if len(samples.y):
            yield samples
        if count == limit:
            break  # before the next batch is loaded
    if not count:
        raise MLScaleError(
            "no validation samples found",
            where="data",
            why="an export is compared on them",
            fix="data.val=<samples that can be read>",
        )


def _iterate_image_batches(data: ImageData) -> Iterator[ValidationBatch]:
    decoded, start = data.get_decoded_split("val"), 0
    for batch in data.val_dataloader():
        x, y, weight = unpack_batch(batch)
        rows = np.arange(start, start + len(y))
        start += len(y)
        # A sample that could not be read has weight 0 and the pixels of another one.
        is_readable = np.ones(len(y), np.bool_) if weight is None else weight.numpy() > 0
        if is_readable.any():
            raw = np.stack([decoded.get_sample(row) for row in rows[is_readable].tolist()])
            yield ValidationBatch(raw, x[is_readable], y.numpy()[is_readable])


def restore_raw_samples(
    data: LightningDataModule | None, x: Tensor, rows: NDArray[np.int64], is_selected: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return the samples of a validation batch that are `kept`, as a client sends them.

    Pixels are taken from memory if they are cached there; else the normalisation is reversed, which is exact for bytes
    in float32: the error is about 1e-4 of the distance between two of them, before rounding.

    Args:
        data: the data module, or None.
        x: the batch as the model was given it, (n, …).
        rows: the indices of its samples in the split, int64 (n,).
        is_selected: bool (n,).
    """
    if not isinstance(data, ImageData):
        return (x.float() if x.is_floating_point() else x).cpu().numpy()[is_selected]
    decoded, rows = data.get_decoded_split("val"), rows[is_selected]
    if (cached := decoded.get_cached_samples(rows)) is not None:
        return cached
    shape = decoded.shape
    # Other dtypes can't be restored exactly: those samples are decoded again, which is slower.
    if shape.dtype != np.uint8 or x.dtype != torch.float32:
        return np.stack([decoded.get_sample(row) for row in rows.tolist()])
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (shape.mean, shape.std))
    pixels: NDArray[np.uint8] = np.rint(x.cpu().numpy()[is_selected] * std + mean).astype(np.uint8)
    return pixels


def iterate_loader_batches(loader: Iterable[Any], split: str) -> Iterator[ValidationBatch]:
    """Yield the samples of a user's loader, where a client sends the same that the model takes.

    Raises:
        MLScaleError: there are several loaders.
    """
    if isinstance(loader, list | tuple | dict):
        if len(loader) != 1:
            raise MLScaleError(
                f"the data module has {len(loader)} {split} loaders", where="data", fix="let it give one"
            )
        loader = next(iter(loader.values() if isinstance(loader, dict) else loader))
    for batch in loader:
        x, y, weight = unpack_batch(batch)
        is_readable = np.ones(len(y), np.bool_) if weight is None else weight.numpy() > 0
        # A servable takes float32 also where the data is in another floating-point type.
        x = x[is_readable].float() if x.is_floating_point() else x[is_readable]
        yield ValidationBatch(x.numpy(), x, y.numpy()[is_readable].astype(np.int64))
