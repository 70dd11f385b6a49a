"""Labels and a version of a user's own map-style dataset, without loading more of it than they need."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from mlscale.data.augmentations.augmentation import preserve_global_generators, seed_generators
from mlscale.data.dataset_samples import parse_pair
from mlscale.errors import MLScaleError

# Samples whose values are part of the data version: to load all of a dataset could take as long as an epoch.
_PROBE_COUNT = 64


def read_all_labels(dataset: Dataset[Any], where: str) -> list[int | str]:
    """Return every label, without loading samples where the dataset has them as a list or a tensor."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        y = dataset.tensors[1]
        if y.ndim == 1 and not y.is_floating_point():
            return [int(label) for label in y.tolist()]
    if isinstance(dataset, Subset):
        # A subset has no `targets`; those of the whole dataset need no loading.
        every = read_all_labels(dataset.dataset, where)
        return [every[i] for i in dataset.indices]
    count = len(dataset)  # type: ignore[arg-type]  # asked in _read
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if isinstance(values, Tensor | np.ndarray):
            values = values.tolist()
        if isinstance(values, list) and len(values) == count and all(isinstance(y, int) for y in values):
            return list(values)
    # Loading a sample may draw random numbers, which must not shift those of training.
    with preserve_global_generators():
        return [parse_pair(dataset[i], where)[1] for i in range(count)]


def probe_samples(dataset: Dataset[Any], where: str, *, skip_bad: bool) -> list[Tensor | None]:
    """Return x of some samples, evenly spread; None for one that cannot be loaded.

    Raises:
        Exception: the dataset's own, from a sample that fails to load; with `skip_bad` only if all fail.
    """
    probed: list[Tensor | None] = []
    failure: Exception | None = None
    with preserve_global_generators():
        # Small datasets give a number more than once.
        last = len(dataset) - 1  # type: ignore[arg-type]  # asked in _read
        for i in np.unique(np.linspace(0, last, _PROBE_COUNT).astype(int)).tolist():
            # A fixed seed, so that random transforms inside the dataset give the same version in every run.
            seed_generators(0)
            try:
                probed.append(parse_pair(dataset[i], where)[0])
            except Exception as error:
                if not skip_bad or isinstance(error, MLScaleError):
                    raise
                probed.append(None)
                failure = error
    if failure is not None and all(value is None for value in probed):
        raise failure
    return probed


def compute_dataset_version(labels: list[int | str], probed: list[Tensor | None]) -> str:
    """Return a digest of the labels and of the values of some samples."""
    total = hashlib.sha256(np.asarray(labels, "<i8").tobytes())
    for x in probed:
        total.update(b"unreadable" if x is None else x.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
