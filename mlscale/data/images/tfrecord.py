"""Image data in a user's TFRecord files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from mlscale.data.images.sharded_images import ShardArguments, ShardBackend
from mlscale.data.order.sample_weights import parse_weight_members
from mlscale.data.shards.index_builder import Scanner, build_index
from mlscale.data.shards.member_digests import RecordedDigests
from mlscale.data.shards.sample_source import TarSource
from mlscale.data.shards.shard_paths import Shard, ShardFiles, Spec, find_shards
from mlscale.data.tfrecord.feature_schema import IMAGE_MEMBER, LABEL_MEMBERS, apply_schema
from mlscale.data.tfrecord.record_index import RecordIndex, are_intact, scan_records
from mlscale.errors import MLScaleError

_FILES = ShardFiles(
    re.compile(r"(\.tfrecords?|\.tfrec|(^|[.-])\d{5}-of-\d{5})$"), ".tfrecord, .tfrecords, .tfrec or -00000-of-00001"
)

_SCANNER = Scanner("tfrecord", scan_records, are_intact)
_MAX_NAMES = 5


class RecordBackend(ShardBackend):
    """Labelled images in TFRecord files of `tf.train.Example`s, read without TensorFlow.

    Records are found by an index of offsets, as samples of tar shards are: any order, exact resume, any number of
    ranks. The checksum of each record is compared when its image is read.

    Args:
        train: files by path, brace pattern, glob, folder, or a list of these; or several such sources by name, to be
            mixed.
        val: files, as above.
        test: the same; None for none.
        schema: the features by their roles: `image`, an encoded image; `label`, whole numbers or names; `key`, the
            sample's name. Checked on the first record. None for image or label is TensorFlow's usual name; without
            a key samples have the numbers of their records.
        classes: see `ImageBackend`.
        verify: compare the checksum of each record whose image is read.
        arguments: see `ShardBackend`, `ImageBackend` and `Policy`; `augment` gets one image, and `weights` may name a
            feature.
    """

    def __init__(
        self,
        train: Spec | Mapping[str, Spec],
        val: Spec,
        test: Spec | None = None,
        schema: Mapping[str, str | None] | None = None,
        verify: bool = True,
        classes: int | Sequence[str] | None = None,
        **arguments: Unpack[ShardArguments],
    ) -> None:
        super().__init__(train, val, test, classes=classes, **arguments)
        self._schema, self._verify = dict(schema or {}), verify

    def _find_shards(self, spec: Spec, where: str) -> list[Shard]:
        return find_shards(spec, where=where, files=_FILES, find_remote=self._find_remote)

    def _open_shards(self, split: str, shards: Sequence[Shard]) -> TarSource:
        where = self._get_key_path(split)
        scanned = build_index(shards, where=where, keep=self._index, scanner=_SCANNER)
        return TarSource(
            apply_schema(
                scanned,
                self._schema,
                labels=self.labels,
                # Only training samples are drawn by weight.
                extra=self._list_weight_features() if split == "train" else [],
                verify=self._verify,
                where=where,
            ),
            # The schema has given the columns these names.
            image_key=IMAGE_MEMBER,
            label_key=LABEL_MEMBERS[self.labels],
            # Nothing in a record is a pickle.
            allow=(),
            where=where,
            one=self.labels == "one",
        )

    def record_digests(self) -> RecordedDigests:
        """Compare the checksum of every record of all splits with its data.

        Raises:
            MLScaleError: records are corrupt, by their names.
        """
        self.facts()
        # All of them, not the first: who restores files wants to know which.
        corrupt = [
            f"{split} {index.get_sample_name(sample)}"
            for split, index in self._indexes.items()
            if isinstance(index, RecordIndex)
            for sample in range(len(index))
            if not index.is_intact(sample)
        ]
        total = sum(len(index) for index in self._indexes.values())
        if corrupt:
            raise MLScaleError(
                f"corrupt: {len(corrupt):,} of {total:,} records",
                where="data.train, data.val",
                why=f"their checksums differ: {', '.join(corrupt[:_MAX_NAMES])}{', …' * (len(corrupt) > _MAX_NAMES)}",
                fix="data.on_bad_sample=skip, which leaves these records out; or restore their files",
            )
        # None is recorded now: the checksums were written with the data.
        shards = sum(len(index.shards) for index in self._indexes.values())
        return RecordedDigests(shards=0, compared=shards, samples=total, folders=())

    def _list_weight_features(self) -> list[str]:
        """Return the feature that `data.weights` names, if it is not a file: features have slashes in their names."""
        named = self.policy.weights
        return [] if named is None or named.endswith(".csv") or Path(named).is_file() else [named]

    def _read_weights(self, named: str) -> NDArray[np.float64]:
        if not self._list_weight_features():
            return super()._read_weights(named)
        members = self._read_weight_members("train", named)
        return parse_weight_members(members, f"feature {named!r}", self.get_decoded_split("train").source.get_key)
