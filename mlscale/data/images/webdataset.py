"""Image data in a user's WebDataset shards."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.images.joined_images import JoinedSource
from mlscale.data.images.labelled_images import ImageData
from mlscale.data.label_kinds import LABELS
from mlscale.data.order.policy import Policy, TolerantPolicyArguments, normalise_shares
from mlscale.data.shards.index_builder import INDEX_LOCATIONS, build_index
from mlscale.data.shards.member_digests import RecordedDigests, record_digests
from mlscale.data.shards.sample_source import SampleSource, TarSource
from mlscale.data.shards.shard_index import Index
from mlscale.data.shards.shard_paths import Shard, Spec, find_shards
from mlscale.errors import MLScaleError, call_all

_ALLOWED_FEATURES = ("pickle", "pipe")
_INCOMPLETE = ("error", "skip")


class WebDataset(ImageData):
    """Labelled images in tar shards, as webdataset writes them: members `key.jpg` and `key.cls`.

    Args:
        train: shards by path, brace pattern, glob, folder, or a list of these; or several such sources by name, to be
            mixed.
        val: shards, as above.
        test: the same; None for none.
        image_key: extension of the image member; None finds it.
        labels: the labels of each image: 'one' class, 'several', or a class for each pixel, by a 'mask'.
        label_key: extension of the label member; None for cls, json or mask.png. One: a whole number from 0, or a class
            name, which are numbered in sorted order. Several: see `several.read_labels`; masks: `masks.decode_mask`.
        classes: see `ImageData`.
        image_size: see `ImageData`.
        workers: threads that decode, per process.
        allow: 'pickle' decodes pickled members, 'pipe' runs `pipe:` commands.
        index: where the offsets of samples are saved: 'beside' (next to) the shards, for every user and machine; in the
            'cache'; 'auto' reads an index next to the shards and writes to the cache.
        incomplete: samples that lack their image or label are an 'error', or 'skip' leaves them out and counts them.
        verify: compare what is read with the digests that `mlscale prepare` has recorded, where it has.
        mix: the share of each source in training, by name; shares count relative to each other.
        max_pixels: see `ImageData`.
        policy: see `Policy`; `augment` gets one image.
    """

    def __init__(
        self,
        train: Spec | Mapping[str, Spec],
        val: Spec,
        test: Spec | None = None,
        image_key: str | None = None,
        label_key: str | None = None,
        image_size: int | None = None,
        workers: int | str = "auto",
        allow: Sequence[str] = (),
        index: str = "auto",
        mix: Mapping[str, float] | None = None,
        labels: str = "one",
        classes: int | Sequence[str] | None = None,
        max_pixels: int = MAX_PIXELS,
        incomplete: str = "error",
        verify: bool = True,
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        super().__init__(
            image_size=image_size,
            workers=workers,
            policy=Policy(**policy),
            labels=labels,
            classes=classes,
            max_pixels=max_pixels,
        )
        if unknown := [word for word in allow if word not in _ALLOWED_FEATURES]:
            raise MLScaleError(
                f"data.allow has {unknown[0]!r}",
                where="data.allow",
                why=f"the words are: {', '.join(_ALLOWED_FEATURES)}",
                fix="data.allow=[]",
            )
        for name, value, options in (("index", index, INDEX_LOCATIONS), ("incomplete", incomplete, _INCOMPLETE)):
            if value not in options:
                raise MLScaleError(
                    f"data.{name} is {value!r}",
                    where=f"data.{name}",
                    why=f"it is one of: {', '.join(options)}",
                    fix=f"data.{name}={options[0]}",
                )
        self._index, self._skip_incomplete, self._verify = index, incomplete == "skip", verify
        self._sources = train if isinstance(train, Mapping) else None
        self._shares = self._check_mix(mix)
        self._specs: dict[str, Spec] = {"val": val, **({} if test is None else {"test": test})}
        if not isinstance(train, Mapping):
            self._specs["train"] = train
        # `super().__init__` has refused unknown labels.
        self._image_key, self._label_key, self._allow = image_key, label_key or LABELS[labels], tuple(allow)
        self._indexes: dict[str, Index] = {}

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

    def _build_openers(self) -> dict[str, Callable[[], SampleSource]]:
        # Opened by the caller, which reports the problems of all splits together.
        return {split: partial(self._open_split, split) for split in ("train", "val", "test") if self._has_split(split)}

    def _has_split(self, split: str) -> bool:
        # Named sources of training are in `_sources`, and not in `_specs`.
        return split in self._specs or split == "train"

    def _open_split(self, split: str) -> SampleSource:
        where = self._get_key_path(split)
        source = TarSource(
            build_index(self._find_split_shards(split), where=where, keep=self._index, verify=self._verify),
            image_key=self._image_key,
            label_key=self._label_key,
            allow=self._allow,
            where=where,
            # Several labels and masks are read by the code that decodes them.
            one=self.labels == "one",
            skip_incomplete=self._skip_incomplete,
        )
        # Without incomplete samples, so that its rows are the samples of the split.
        self._indexes[split] = source.index
        return source

    def _find_split_shards(self, split: str) -> list[Shard]:
        where = self._get_key_path(split)
        if split in self._specs:
            return find_shards(self._specs[split], where=where, allow=self._allow)
        return [
            # The source's name keeps keys unique over all sources; `_get_source_mix` reads it from there.
            Shard(f"{name}/{shard.name}", shard.path)
            for name, spec in (self._sources or {}).items()
            for shard in find_shards(spec, where=f"{where}.{name}", allow=self._allow)
        ]

    @property
    def label_key(self) -> str:
        """The extension of the label member."""
        return self._label_key

    def list_shard_paths(self, split: str) -> list[str]:
        """Return absolute paths of the shards of a split ('train', 'val' or 'test'), in order; of all sources.

        Raises:
            MLScaleError: the split does not exist, or a path in it.
        """
        if not self._has_split(split):
            raise MLScaleError(
                f"this data has no {split} split", where=self._get_key_path(split), fix=f"data.{split}=<shards>"
            )
        return [os.path.abspath(shard.path) for shard in self._find_split_shards(split)]

    def record_digests(self) -> RecordedDigests:
        """Record a digest of every member of all splits, or compare it with the one that was recorded before.

        Raises:
            MLScaleError: members are not as they were; see `digests.record_digests`.
        """
        done = call_all(
            {split: partial(self._record_split, split) for split in ("train", "val", "test") if self._has_split(split)}
        )
        return RecordedDigests(
            shards=sum(part.shards for part in done.values()),
            compared=sum(part.compared for part in done.values()),
            samples=sum(part.samples for part in done.values()),
            folders=tuple(dict.fromkeys(folder for part in done.values() for folder in part.folders)),
        )

    def _record_split(self, split: str) -> RecordedDigests:
        return record_digests(self._find_split_shards(split), where=self._get_key_path(split), keep=self._index)

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

    def read_members(self, split: str, extension: str) -> list[bytes]:
        """Return the bytes of a small member of every sample, in order; empty where a sample lacks it.

        Raises:
            MLScaleError: none of the samples has it.
        """
        parts = _list_index_parts(self.get_decoded_split(split).source)
        if not any(extension.lower() in index.extensions for index, _ in parts):
            names = dict.fromkeys(name for index, _ in parts for name in index.extensions)
            raise MLScaleError(
                f"the samples have no '.{extension}' member",
                where=self._get_key_path(split),
                why=f"their members are: {', '.join(f'.{name}' for name in names)}",
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
                f"{int(absent.sum())} of {len(index)} samples have no .{extension} member",
                where="data.weights",
                why=f"the first is {index.get_sample_name(int(np.argmax(absent)))}",
                fix="write a weight for every sample; 0 for one that is never drawn",
            )
        return index.read_column(column)


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
