"""Write the splits of image data as shards, all of a split of about one size."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale import contracts
from mlscale.atomic_files import (
    compute_sha256,
    create_write_error,
    make_folders,
    read_json,
    remove_leftovers,
    write_bytes,
    write_json,
)
from mlscale.data.images.image_modules import ImageData
from mlscale.data.order.sample_order import ShuffledSampler
from mlscale.data.shards.member_digests import record_digests
from mlscale.data.shards.shard_paths import Shard
from mlscale.data.tfrecord.feature_schema import USUAL_NAMES
from mlscale.data.writing.reencoding import Reencoding
from mlscale.data.writing.sample_contents import LeftOut, SampleContents
from mlscale.errors import MLScaleError

DOCUMENT, _PLAN = "dataset.json", ".plan.json"
_PROBED = 256
"""Samples, evenly spread, whose mean size determines how many shards there are."""
_MAX_THREADS = 4
_MODE = 0o644
"""Data is shared: whoever may enter the folder may read it."""
Progress = Callable[[int], None]
"""Called with the number of samples of a shard that is done."""


@dataclass(frozen=True)
class Part:
    """One of several processes that write a data set together: those shards whose number leaves `number` over `of`."""

    number: int = 0
    of: int = 1


@dataclass(frozen=True)
class WrittenShards:
    """The result of `write_shards`.

    Args:
        folder: of the data set; one folder for each split is in it.
        written: shards that were written now.
        found_before: shards of this part that an earlier call had written.
        samples: of all splits.
        is_complete: all parts are there, and `dataset.json` is written.
    """

    folder: Path
    written: int
    found_before: int
    samples: int
    is_complete: bool


@dataclass(frozen=True, eq=False)  # by identity: arrays have no equality of their own
class _Split:
    """A split, and how it is cut into shards."""

    name: str
    contents: SampleContents
    order: NDArray[np.int64]
    shards: int

    def get_path(self, folder: Path, number: int, extension: str) -> Path:
        return folder / self.name / f"{self.name}-{number:05d}-of-{self.shards:05d}.{extension}"

    def get_start(self, number: int) -> int:
        """Return the position of the first sample of a shard; of `shards` the position behind the last."""
        return len(self.order) * number // self.shards

    def list_samples(self, number: int) -> NDArray[np.int64]:
        """Return the samples of a shard, int64 (n,)."""
        return self.order[self.get_start(number) : self.get_start(number + 1)]


def write_shards(
    data: ImageData,
    folder: Path,
    *,
    container: str,
    shard_bytes: int,
    seed: int,
    licence: str | None,
    part: Part,
    progress: Progress,
    left_out: LeftOut | None = None,
    reencoding: Reencoding | None = None,
) -> WrittenShards:
    """Write all splits in an order drawn by the seed. Shards that are there already are kept.

    Args:
        data: the source.
        folder: a new one, or one of an earlier call with the same data and settings.
        container: see `SampleContents`.
        shard_bytes: of one shard, about.
        seed: of the order.
        licence: of the data, for `dataset.json`.
        part: of several processes that write together.
        progress: see `Progress`.
        left_out: samples that are not written; None writes all.
        reencoding: of the images; None leaves their bytes as they are.

    Raises:
        MLScaleError: no sample of a split is left; the folder holds other data, or can't be written to; a sample can't
            be read.
    """
    left_out = left_out or LeftOut()
    splits = _plan_splits(data, container, shard_bytes, seed, left_out, reencoding)
    plan = _describe_plan(data, splits, container, seed, left_out, reencoding)
    claim_plan(folder, plan, [split.name for split in splits])
    # Every `of`-th, so that each part has shards of all splits and none waits for another.
    jobs = [(split, number) for split in splits for number in range(split.shards)][part.number :: part.of]
    missing = [job for job in jobs if not job[0].get_path(folder, job[1], container).exists()]
    # They count at once, as a progress bar would begin anew otherwise.
    for split, number in set(jobs) - set(missing):
        progress(len(split.list_samples(number)))

    cores = len(os.sched_getaffinity(0))
    # Threads, because reading and writing release the interpreter's lock, and so do decoders and encoders. Each of the
    # first kind holds one shard in memory, of which those of the second make the samples.
    pool = ThreadPoolExecutor(min(_MAX_THREADS, cores))
    builders = ThreadPoolExecutor(cores) if reencoding is not None else None

    def write(job: tuple[_Split, int]) -> None:
        split, number = job
        path = split.get_path(folder, number, container)
        _write_shard(split, number, path, builders, progress)

    try:
        list(pool.map(write, missing))
    finally:
        # After an error, or Ctrl-C, shards that were not begun are not written.
        pool.shutdown(wait=builders is None, cancel_futures=True)
        if builders is not None:
            builders.shutdown(cancel_futures=True)
            pool.shutdown()
    is_complete = all(
        split.get_path(folder, number, container).exists() for split in splits for number in range(split.shards)
    )
    if is_complete:
        if container == "tar":
            _record_digests(splits, folder)
        _write_document(data, splits, folder, plan, licence)
    return WrittenShards(
        folder, len(missing), len(jobs) - len(missing), sum(len(split.order) for split in splits), is_complete
    )


def count_samples(data: ImageData) -> int:
    """Return the number of samples of all splits, for a progress bar."""
    return sum(len(data.get_decoded_split(split)) for split in data.list_splits())


def _plan_splits(
    data: ImageData, container: str, shard_bytes: int, seed: int, left_out: LeftOut, reencoding: Reencoding | None
) -> list[_Split]:
    facts, splits = data.facts(), []
    for name in data.list_splits():
        held = data.get_decoded_split(name)
        order = ShuffledSampler(len(held), seed=seed, version=held.source.version).get_epoch_order(0)(0, len(held))
        order = order[~np.isin(order, left_out.rows.get(name, ()))]
        if not len(order):
            raise MLScaleError(
                f"no sample of {name} is left",
                where="leave_out",
                why="all of them are in the list",
                fix="leave_out=null",
            )
        contents = SampleContents(container, held, data.labels, facts.class_names, reencoding, data.max_pixels)
        shards = math.ceil(_estimate_bytes(contents, order) * len(order) / shard_bytes)
        splits.append(_Split(name, contents, order, min(shards, len(order))))
    return splits


def _estimate_bytes(contents: SampleContents, order: NDArray[np.int64]) -> float:
    """Return the mean size of a sample, with headers."""
    # By number, and not by place in the order: another seed has the same number of shards.
    picks = np.sort(order)[np.unique(np.linspace(0, len(order) - 1, _PROBED).astype(np.int64))].tolist()
    return float(np.mean([len(contents.build_part(sample, "")) for sample in picks]))


def _describe_plan(
    data: ImageData,
    splits: list[_Split],
    container: str,
    seed: int,
    left_out: LeftOut,
    reencoding: Reencoding | None,
) -> dict[str, Any]:
    # All that decides which bytes a shard of a given name has.
    return {
        "container": container,
        "labels": data.labels,
        "source_version": data.facts().version,
        "seed": seed,
        # Absent where nothing is, as in folders that were begun before samples could be left out.
        **({} if left_out.digest is None else {"selection": left_out.digest}),
        **({} if reencoding is None else {"reencoding": reencoding.describe()}),
        "splits": {split.name: {"samples": len(split.order), "shards": split.shards} for split in splits},
    }


def claim_plan(folder: Path, plan: dict[str, Any], splits: list[str]) -> None:
    """Record what is written to the folder, so that another call continues it or is refused.

    Args:
        folder: of the data set.
        plan: all that decides which bytes its files have.
        splits: the folders in it, which hold nothing else.

    Raises:
        MLScaleError: it holds other data, or can't be written to.
    """
    path = folder / _PLAN
    try:
        for split in splits:
            make_folders(folder / split)
        # Of an earlier call that was killed, or whose disk was full.
        remove_leftovers(folder)
        if not path.exists():
            # Folders, such as that of indexes, are not shards of another data set.
            if loose := [file for split in splits for file in (folder / split).iterdir() if file.is_file()]:
                raise MLScaleError(
                    f"the folder {str(folder)!r} holds other files",
                    where="to",
                    why=f"{loose[0]} is not of this data set",
                    fix="to=<a new folder>",
                )
            write_json(path, plan)
    except OSError as error:
        raise create_write_error(folder, error) from error
    # Read again, since another part may have been quicker.
    before = read_json(path)
    if before != plan:
        changed = [name for name in dict.fromkeys([*plan, *before]) if before.get(name) != plan.get(name)]
        raise MLScaleError(
            f"the folder {str(folder)!r} holds other data",
            where="to",
            why=f"it was begun with another {' and '.join(name.replace('_', ' ') for name in changed)}",
            fix="to=<a new folder>, or remove this one",
        )


def _write_shard(
    split: _Split, number: int, path: Path, builders: ThreadPoolExecutor | None, progress: Progress
) -> None:
    """Write a shard at once, so that one that has its name is whole."""

    def build(numbered: tuple[int, int]) -> bytes:
        position, sample = numbered
        # Keys are positions in the split, unique over all of its shards.
        part = split.contents.build_part(sample, f"{position:06d}")
        progress(1)
        return part

    samples = enumerate(split.list_samples(number).tolist(), split.get_start(number))
    # In the order of the samples, whichever is ready first.
    parts = list((map if builders is None else builders.map)(build, samples))
    write_bytes(path, split.contents.join_parts(parts), mode=_MODE)


def _record_digests(splits: list[_Split], folder: Path) -> None:
    """Record a digest of every member next to the shards; those of an earlier call are compared.

    Raises:
        MLScaleError: a shard has changed since an earlier call; an index can't be written.
    """
    paths = [split.get_path(folder, number, "tar") for split in splits for number in range(split.shards)]
    # Records have checksums of their own. Next to the shards, since they are copied and uploaded with them.
    record_digests([Shard(path.name, str(path)) for path in paths], where="to", keep="beside")


def _count_classes(data: ImageData, split: _Split) -> list[int]:
    """Return the samples of each class that are written; of masks the training pixels, none where some are left out."""
    held = data.get_decoded_split(split.name)
    if data.labels == "mask":
        # Only the masks of training were read for it, and all of them.
        known = split.name == "train" and len(split.order) == len(held)
        return list(data.facts().class_counts) if known else []
    labels = held.labels[split.order]
    # Several labels are a 1 for each class that an image has.
    if labels.ndim == 2:
        return [int(count) for count in labels.sum(0, np.int64)]
    return [int(count) for count in np.bincount(labels, minlength=data.facts().num_classes or 0)]


def _write_document(
    data: ImageData, splits: list[_Split], folder: Path, plan: dict[str, Any], licence: str | None
) -> None:
    facts, container = data.facts(), plan["container"]
    paths = {
        split.name: [split.get_path(folder, number, container) for number in range(split.shards)] for split in splits
    }
    counts = {split.name: _count_classes(data, split) for split in splits}
    document = {
        "format": contracts.get_format_tag("dataset"),
        **plan,
        "splits": {name: {**planned, "class_counts": counts[name]} for name, planned in plan["splits"].items()},
        "schema": USUAL_NAMES[data.labels] if plan["container"] == "tfrecord" else None,
        "classes": facts.num_classes,
        "class_names": facts.class_names,
        "class_counts": counts[splits[0].name],
        "channels": facts.channels,
        "mean": facts.mean,
        "std": facts.std,
        "source": type(data).__name__,
        "licence": licence,
        "bytes": {split: sum(path.stat().st_size for path in files) for split, files in paths.items()},
        "shards": {split: _describe_files(files) for split, files in paths.items()},
    }
    write_json(folder / DOCUMENT, contracts.add_checksum(document))


def _describe_files(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return name, size and SHA-256 of each file: copies on other machines are compared with them."""
    # Read again: other parts, and earlier calls, have written some of them.
    with ThreadPoolExecutor(_MAX_THREADS) as pool:
        digests = pool.map(compute_sha256, paths)
        return [
            {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
            for path, digest in zip(paths, digests, strict=True)
        ]
