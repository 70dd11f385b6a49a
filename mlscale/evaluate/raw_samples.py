"""Read the samples of a split as a client would send them, for a model that takes raw input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.images.labelled_images import ImageData
from mlscale.errors import MLScaleError
from mlscale.export.validation_samples import iterate_loader_batches
from mlscale.tasks.batch import unpack_batch

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

Raw = tuple[NDArray[Any], NDArray[np.int64], list[str] | None]
"""Samples (n, …), their class numbers (n,), their keys."""


def iterate_raw_samples(data: LightningDataModule, split: str) -> Iterator[Raw]:
    """Yield the batches of a split; samples that could not be read are left out.

    Args:
        data: the data module, set up.
        split: val or test.
    """
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    if not isinstance(data, ImageData):
        for samples in iterate_loader_batches(loader, split):
            yield samples.raw, samples.y, None
        return
    # The loader's images are resized and normalised; the stored ones are read again, by row, as a client has them.
    decoded, start = data.get_decoded_split(split), 0
    for batch in loader:
        _, y, weight = unpack_batch(batch)
        rows = np.arange(start, start + len(y))
        start += len(y)
        # Weight 0: it fills up the batch, or replaces a sample that could not be read (data.on_bad_sample=skip).
        is_readable = np.ones(len(y), np.bool_) if weight is None else weight.numpy() > 0
        if is_readable.any():
            raw = np.stack([decoded.get_sample(row) for row in rows[is_readable].tolist()])
            yield raw, y.numpy()[is_readable], decoded.list_keys(rows[is_readable].tolist())


def map_class_numbers(data: LightningDataModule, labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the model's number for each class of the data, int64 (classes,): both may be numbered differently.

    Raises:
        MLScaleError: the model does not know a class.
    """
    facts = data.facts() if hasattr(data, "facts") else None
    if facts is None:
        return np.arange(len(labels))
    names = [str(name) for name in facts.class_names or range(facts.num_classes or len(labels))]
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise MLScaleError(
            f"the model does not know the class '{unknown[0]}'"
            + (f" and {len(unknown) - 1} more" * (len(unknown) > 1)),
            where="data",
            why=f"its classes are {', '.join(list(labels)[:8])}{', …' if len(labels) > 8 else ''}",
            fix="choose data of the classes that the model was trained on",
        )
    return np.array([list(labels).index(name) for name in names], np.int64)
