"""Windows of production next to a user's own datasets: arrays as the model takes them, with their class numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from mlscale.atomic_files import make_folders
from mlscale.data.order.policy import Policy
from mlscale.data.windows.window_folder import arrange_windows, name_origin, read_window_arrays

_FILE = "rows.npz"


@dataclass(frozen=True, eq=False)
class DatasetPart:
    """The samples of one origin.

    Attributes:
        dataset: of pairs (x, y).
        labels: class numbers, int64 (n,).
        version: digest of what it holds.
        left_out: further samples that do not count, as their classes have been relabelled.
    """

    dataset: Dataset[Any]
    labels: NDArray[np.int64]
    version: str
    left_out: int = 0


@dataclass(frozen=True, eq=False)
class JoinedDataset:
    """Parts by the name of their origin, one after the other.

    Attributes:
        parts: at least one, the newest last.
    """

    parts: Mapping[str, DatasetPart]

    @property
    def dataset(self) -> Dataset[Any]:
        """All samples."""
        return ConcatDataset([part.dataset for part in self.parts.values()])

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class numbers of all samples, (n,)."""
        return np.concatenate([part.labels for part in self.parts.values()])

    @property
    def version(self) -> str:
        """A digest by content, without the names of folders, which each cycle draws by chance."""
        content = "|".join(f"{name_origin(name)}={part.version}" for name, part in self.parts.items())
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def newest(self) -> int:
        """The number of samples of the last part."""
        return len(list(self.parts.values())[-1].labels)

    def list_origins(self) -> list[str]:
        """Return the origin of each sample."""
        return [name for name, part in self.parts.items() for _ in range(len(part.labels))]


def write_dataset_window(folder: Path, samples: Sequence[NDArray[Any]], labels: NDArray[np.int64]) -> None:
    """Write samples of production with their class numbers.

    Args:
        folder: the new folder of the file.
        samples: as the model takes them, of one shape.
        labels: class numbers, (n,).
    """
    make_folders(folder)
    np.savez(folder / _FILE, x=np.stack(samples), y=labels)


def read_dataset_window(folder: Path) -> DatasetPart:
    """Return the samples of a part of a window, as `write_dataset_window` wrote it.

    Raises:
        MLScaleError: the file is absent or corrupt.
    """
    path = folder / _FILE
    stored = read_window_arrays(path)
    x, y = stored["x"], stored["y"].astype(np.int64)
    version = hashlib.sha256(x.tobytes() + y.astype("<i8").tobytes()).hexdigest()[:16]
    return DatasetPart(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), y, version)


def join_dataset_windows(
    policy: Policy, splits: Mapping[str, DatasetPart], relabelled: NDArray[np.int64]
) -> dict[str, JoinedDataset]:
    """Return the splits of a retraining; see `arrange_windows`.

    Args:
        policy: with the windows.
        splits: of the original data.
        relabelled: numbers of the classes of which no old sample counts.
    """
    parts = arrange_windows(
        policy,
        splits,
        read_dataset_window,
        lambda part: _drop_classes(part, relabelled),
        lambda part: len(part.labels),
    )
    return {split: JoinedDataset(dict(joined)) for split, joined in parts.items()}


def _drop_classes(part: DatasetPart, classes: NDArray[np.int64]) -> DatasetPart:
    if not len(classes):
        return part
    others = np.flatnonzero(~np.isin(part.labels, classes))
    left_out = len(part.labels) - len(others)
    version = f"{part.version} without {classes.tolist()}"
    return DatasetPart(Subset(part.dataset, others.tolist()), part.labels[others], version, left_out)
