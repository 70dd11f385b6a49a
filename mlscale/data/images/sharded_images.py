"""Images in files of many samples each, which an index finds: the common part of tar shards and TFRecord files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.data_facts import DataFacts
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.images.joined_images import JoinedSource
from mlscale.data.images.labelled_images import ImageBackend
from mlscale.data.images.windowed_shards import (
    DEFAULT_WINDOW,
    build_windowed_order,
    parse_cache_size,
    parse_window,
)
from mlscale.data.order.loader import Follow
from mlscale.data.order.policy import Policy, TolerantPolicyArguments, normalise_shares
from mlscale.data.order.sample_order import SampleOrder
from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.data.shards.index_builder import INDEX_LOCATIONS, report_without_digests
from mlscale.data.shards.read_ahead import build_read_ahead
from mlscale.data.shards.sample_source import SampleSource, TarSource
from mlscale.data.shards.shard_index import Index
from mlscale.data.shards.shard_paths import Shard, Spec
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from mlscale.data.remote.remote_shard import RemoteAccess


class ShardArguments(TolerantPolicyArguments, total=False):
    """The arguments of `ShardBackend` that its subclasses hand on."""

    image_size: int | None
    workers: int | str
    index: str
    mix: Mapping[str, float] | None
    labels: str
    max_pixels: int
    cache_dir: str | None
    cache_gb: float | str
    order: str
    shuffle_window: int | str


class ShardBackend(ImageBackend):
    """Labelled images in shards of a format that a subclass opens.

    Args:
        train: shards by path, brace pattern, glob, folder, or a list of these; or several such sources by name, to be
            mixed.
        val: shards, as above.
        test: the same; None for none.
        index: where offsets are saved; one of `INDEX_LOCATIONS`.
        mix: the share of each source in training, by name; shares count relative to each other.
        cache_dir: folder of downloaded shards; None for `shards` in the cache of data sets.
        cache_gb: gigabytes that they may have together; 'auto' for half of the free disk.
        order: 'global' mixes all samples; 'windowed' those of a few whole shards at a time.
        shuffle_window: what is mixed at a time: a number of shards, or their size, such as '4GB'.
        others: see `ImageBackend`.
    """

    def __init__(
        self,
        train: Spec | Mapping[str, Spec],
        val: Spec,
        test: Spec | None = None,
        *,
        image_size: int | None = None,
        workers: int | str = "auto",
        index: str = "auto",
        mix: Mapping[str, float] | None = None,
        labels: str = "one",
        classes: int | Sequence[str] | None = None,
        max_pixels: int = MAX_PIXELS,
        cache_dir: str | None = None,
        cache_gb: float | str = "auto",
        order: str = "global",
        shuffle_window: int | str = DEFAULT_WINDOW,
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        super().__init__(
            Policy(**policy),
            image_size=image_size,
            workers=workers,
            labels=labels,
            classes=classes,
            max_pixels=max_pixels,
        )
        # Before any path is looked at, since a misspelt word is the quicker error.
        check_word("index", index, INDEX_LOCATIONS)
        self._index = index
        self._cache_dir, self._cache_bytes = cache_dir, parse_cache_size(cache_gb)
        self._window = parse_window(order, shuffle_window, self.policy)
        self._remote: RemoteAccess | None = None
        self._sources = train if isinstance(train, Mapping) else None
        self._shares = self._check_mix(mix)
        self._specs: dict[str, Spec] = {"val": val, **({} if test is None else {"test": test})}
        if not isinstance(train, Mapping):
            self._specs["train"] = train
        self._indexes: dict[str, Index] = {}

    def _find_shards(self, spec: Spec, where: str) -> list[Shard]:
        """Return the shards that a spec names."""
        raise NotImplementedError

    def _open_shards(self, split: str, shards: Sequence[Shard]) -> TarSource:
        """Return the samples of a split's shards."""
        raise NotImplementedError

    def _check_mix(self, mix: Mapping[str, float] | None) -> NDArray[np.int64] | None:
        """Return the shares of the named sources, int64 (k,); None if sources have no names."""
        if self._sources is None:
            if mix is not None:
                raise MLScaleError(
                    "data.mix has no effect: data.train names no sources",
                    where="data.mix",
                    fix="'data.train={" + ",".join(f"{name}: <shards>" for name in mix) + "}', or data.mix=null",
                )
            return None
        if mix is None:
            even = ",".join(f"{name}: 1" for name in self._sources)
            raise MLScaleError(
                "data.train names several sources without their shares",
                where="data.mix",
                fix=f"'data.mix={{{even}}}'; or a list in data.train, to have them one after the other as one set",
            )
        if self.policy.sampling != "shuffle":
            raise MLScaleError(
                f"sources are mixed by share and not by data.sampling={self.policy.sampling}",
                where="data.sampling",
                why="the shares of sources and the shares of classes or samples contradict each other",
                fix="data.sampling=shuffle; or a list in data.train, and data.mix=null",
            )
        return normalise_shares(mix, self._sources)

    def build_openers(self) -> dict[str, Callable[[], SampleSource]]:
        # Opened by the caller, which reports the problems of all splits together.
        return {split: partial(self._open_split, split) for split in ("train", "val", "test") if self._has_split(split)}

    def _has_split(self, split: str) -> bool:
        # Named sources of training are in `_sources`, and not in `_specs`.
        return split in self._specs or split == "train"

    def _open_split(self, split: str) -> SampleSource:
        source = self._open_shards(split, self._find_split_shards(split))
        # Without incomplete samples, so that its rows are the samples of the split.
        self._indexes[split] = source.index
        without = [name for name, index in self._indexes.items() if index.digests is None]
        if len(without) < len(self._indexes):
            for name in without:
                report_without_digests(self._indexes[name].shards, self._get_key_path(name))
        return source

    def _find_split_shards(self, split: str) -> list[Shard]:
        where = self._get_key_path(split)
        if split in self._specs:
            return self._find_shards(self._specs[split], where)
        return [
            # The source's name keeps keys unique over all sources; `_get_source_mix` reads it from there.
            replace(shard, name=f"{name}/{shard.name}")
            for name, spec in (self._sources or {}).items()
            for shard in self._find_shards(spec, f"{where}.{name}")
        ]

    def list_shard_paths(self, split: str) -> list[str]:
        """Return absolute paths of the shards of a split ('train', 'val' or 'test'), in order; of all sources.

        Raises:
            MLScaleError: the split does not exist, or a path in it.
        """
        if not self._has_split(split):
            raise MLScaleError(
                f"this data has no {split} split", where=self._get_key_path(split), fix=f"data.{split}=<shards>"
            )
        shards = self._find_split_shards(split)
        return [shard.path if shard.is_remote else os.path.abspath(shard.path) for shard in shards]

    def _get_source_mix(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        # With windows their shares replace those of the sources.
        if self.policy.windows or self._sources is None or self._shares is None:
            return super()._get_source_mix()
        self.facts()
        index = self._indexes["train"]
        source = [shard.name.split("/", 1)[0] for shard in index.shards]
        # Counted in the index: incomplete samples may have been left out.
        counts = Counter(source[number] for number in index.shard.tolist())
        return np.array([counts[name] for name in self._sources], np.int64), self._shares

    def _find_remote(self, entry: str, where: str, names: re.Pattern[str]) -> Sequence[Shard]:
        # Imported on use: who has shards on a disk needs nothing of it.
        from mlscale.data.remote.find_remote import find_remote_shards, open_access

        # One for all splits, which share a cache.
        if self._remote is None:
            self._remote = open_access(self._cache_dir, self._cache_bytes)
        return find_remote_shards(entry, where, names, self._remote)

    def _choose_sampling(self, samples: int, version: str) -> SampleOrder:
        # Windows of retraining are mixed by share with the samples of all shards.
        if self._window is None or self._get_source_mix() is not None:
            return super()._choose_sampling(samples, version)
        self.facts()
        return build_windowed_order(self._indexes["train"], self._window, self.policy, self.seed, version)

    def _get_follow(self, split: str) -> Follow:
        data = self.get_decoded_split(split)
        # What is in memory is not read again, except by a crop of the stored image.
        if data.is_kept_whole and not isinstance(self.augment, RandomCrop):
            return super()._get_follow(split)
        sampling = self._get_sampling() if split == "train" else None
        if self._remote is None:
            if not isinstance(sampling, WindowedSampler):
                return super()._get_follow(split)
            return build_read_ahead(*list_sample_shards(data.source), sampling)
        from mlscale.data.remote.prefetch import build_follow

        return build_follow(*list_sample_shards(data.source), sampling, self._get_key_path(split))

    def facts(self) -> DataFacts:
        is_read = self._facts is not None
        facts = super().facts()
        if not is_read:
            self._report_transfers()
        return facts

    def teardown(self, stage: str) -> None:
        """Report what failed on the way from other machines, too."""
        super().teardown(stage)
        self._report_transfers()

    def _report_transfers(self) -> None:
        if self._remote is not None:
            from mlscale.data.remote.prefetch import report_transfers

            report_transfers(self._remote)

    def read_members(self, split: str, extension: str) -> list[bytes]:
        """Return the bytes of a small member of every sample, in order; empty where a sample lacks it.

        Raises:
            MLScaleError: none of the samples has it.
        """
        parts = _list_index_parts(self.get_decoded_split(split).source)
        if not any(extension.lower() in index.extensions for index, _ in parts):
            names = dict.fromkeys(
                index.describe_column(column) for index, _ in parts for column in range(len(index.extensions))
            )
            raise MLScaleError(
                f"the samples have no {parts[0][0].describe_part(extension)}",
                where=self._get_key_path(split),
                why=f"what they have: {', '.join(names)}",
                fix="name one of these",
            )
        return [content for index, rows in parts for content in _read_members(index, rows, extension.lower())]

    def _read_weight_members(self, split: str, extension: str) -> list[bytes]:
        index = self._indexes[split]
        if extension.lower() not in index.extensions:
            raise MLScaleError(
                f"the samples have no '.{extension}' member",
                where="data.weights",
                why=f"their members are: {', '.join(f'.{name}' for name in index.extensions)}",
                fix="data.weights=<one of these>, or data.weights=weights.csv   (lines of key,weight)",
            )
        column = index.extensions.index(extension.lower())
        # Unlike `read_members`: a sample without a weight can't be drawn by weight.
        if (absent := index.offsets[:, column] < 0).any():
            raise MLScaleError(
                f"{int(absent.sum())} of {len(index)} samples lack their {index.describe_column(column)}",
                where="data.weights",
                why=f"the first is {index.get_sample_name(int(np.argmax(absent)))}",
                fix="write a weight for every sample; 0 for one that is never drawn",
            )
        return index.read_column(column)


def check_word(name: str, value: object, words: Sequence[str]) -> None:
    """Raise if a setting is not one of its words.

    Raises:
        MLScaleError: it is not.
    """
    if value not in words:
        raise MLScaleError(
            f"data.{name} is {value!r}",
            where=f"data.{name}",
            why=f"it is one of: {', '.join(words)}",
            fix=f"data.{name}={words[0]}",
        )


def list_sample_shards(source: SampleSource) -> tuple[list[Shard], NDArray[np.int64]]:
    """Return the shards of a split, and which of them each sample is in, int64 (n,)."""
    shards: list[Shard] = []
    numbers = []
    for index, rows in _list_index_parts(source):
        numbers.append(index.shard[rows].astype(np.int64) + len(shards))
        shards += index.shards
    return shards, np.concatenate(numbers)


def _list_index_parts(source: SampleSource) -> list[tuple[Index, NDArray[np.int64]]]:
    """Return the indexes of a split's samples, and the rows of each that count."""
    if isinstance(source, JoinedSource):
        return [(part.source.index, part.numbers) for part in source.parts if isinstance(part.source, TarSource)]
    assert isinstance(source, TarSource)
    return [(source.index, np.arange(len(source), dtype=np.int64))]


def _read_members(index: Index, rows: NDArray[np.int64], extension: str) -> list[bytes]:
    if extension not in index.extensions:
        return [b""] * len(rows)
    column = index.extensions.index(extension)
    # -1 marks a member that a sample lacks.
    has_member = index.offsets[:, column] >= 0
    return [index.read_member(sample, column) if has_member[sample] else b"" for sample in rows.tolist()]
