"""The lineage of a champion: the run and checkpoint that a challenger starts from, and the data of its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data import WebDataset
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.versions import LocalRegistry, Version
from mlscale.versions.version_reference import CHAMPION
from mlscale.versions.version_weights import find_version_run

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from mlscale.data.images.labelled_images import ImageData

RETRAINED = "retrain"
"""The tag of a run that a cycle has trained: its validation data are a window, the earlier ones are its test data."""
_BATCH = 256


def require_champion(registry: LocalRegistry, version: Version) -> Version:
    """Return `version` if it is its model's champion.

    Raises:
        MLScaleError: it is not the champion, or its model has none.
    """
    # The alias may have moved since the version was resolved: read it now.
    number = registry.get_aliases(version.name).of.get(CHAMPION)
    if number == version.number:
        return version
    raise MLScaleError(
        f"{version.ref} is not the champion of {version.name}",
        where=f"ref={version.ref}",
        why=f"that is {version.name}:v{number}" if number else "there is none yet",
        fix=f"mlscale retrain {version.name}@champion" if number else f"mlscale versions promote {version.ref}",
    )


def find_origin(version: Version, runs_dir: str | Path) -> tuple[RunFolder, Path]:
    """Return the run and the checkpoint that a version was exported from.

    Raises:
        MLScaleError: the version names no run, or run or checkpoint was not found.
    """
    run = version.run or {}
    folder = find_version_run(version, runs_dir)
    if folder is None:
        raise MLScaleError(
            f"the run that {version.ref} comes from is not there",
            where=str(run.get("path") or runs_dir),
            why=f"a challenger has the config of run {run['id']}, and starts from its weights"
            if run.get("id")
            else "the version names no run",
            fix="runs_dir=<the folder of its runs>, or train, export and promote a model of a run that you keep",
        )
    path = folder.path / "checkpoints" / str(run.get("checkpoint") or "best.ckpt")
    if not path.is_file():
        raise MLScaleError(
            f"the checkpoint that {version.ref} was made of is gone",
            where=str(path),
            why="a challenger starts from its weights",
            fix="put the file back, or train, export and promote another model",
        )
    return folder, path


@dataclass(frozen=True)
class ChampionData:
    """The training and validation data of the champion.

    Attributes:
        train: paths of training shards.
        original: paths of the shards on which a challenger must not be worse.
        splits: the splits of these shards.
        has_label_names: True if labels in the shards are names, False if numbers.
        label_key: extension of the label member.
    """

    train: tuple[str, ...]
    original: tuple[str, ...]
    splits: tuple[str, ...]
    has_label_names: bool
    label_key: str


def collect_champion_data(data: LightningDataModule | None, tags: Sequence[str]) -> ChampionData:
    """Return the shards of the champion's data module.

    A run that a cycle has trained was validated on that cycle's window; the earlier validation data are its test data.
    A challenger is compared on both.

    Args:
        data: prepared.
        tags: of the champion's run.

    Raises:
        MLScaleError: its data are not shards.
    """
    # Without its own data the challenger would forget what the champion knows: only shards can be mixed by share.
    if not isinstance(data, WebDataset):
        raise MLScaleError(
            f"the champion's data are {type(data).__name__}, no shards",
            where="data",
            why="a challenger is trained on the window and, so that nothing is forgotten, on these, mixed by share",
            fix="write the data as WebDataset shards, and train a champion on them: data=webdataset data.train=…",
        )
    splits = ("test", "val") if RETRAINED in tags else ("val",)
    return ChampionData(
        train=tuple(data.list_shard_paths("train")),
        original=tuple(path for split in splits for path in data.list_shard_paths(split)),
        splits=splits,
        has_label_names=data.facts().class_names is not None,
        label_key=data.label_key,
    )


def iterate_labelled_samples(
    data: ImageData, splits: Sequence[str]
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Yield the stored samples of splits in batches, raw, with the numbers of their classes.

    Args:
        data: the data module.
        splits: train, val or test.
    """
    for split in splits:
        decoded = data.get_decoded_split(split)
        # In batches: a validation set may be larger than memory.
        for start in range(0, len(decoded), _BATCH):
            rows = range(start, min(start + _BATCH, len(decoded)))
            raw = np.stack([decoded.get_sample(row) for row in rows])
            yield raw, np.asarray(decoded.labels[rows.start : rows.stop], np.int64)
