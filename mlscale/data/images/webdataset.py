"""Image data in a user's WebDataset shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Unpack

from mlscale.data.images.sharded_images import ShardArguments, ShardBackend, check_word
from mlscale.data.label_kinds import LABELS
from mlscale.data.shards.index_builder import build_index
from mlscale.data.shards.member_digests import RecordedDigests, record_digests
from mlscale.data.shards.sample_source import TarSource
from mlscale.data.shards.shard_paths import Shard, Spec, find_shards
from mlscale.errors import MLScaleError, call_all

_INCOMPLETE = ("error", "skip")


class TarArguments(ShardArguments, total=False):
    """The arguments of `TarBackend` that a subclass hands on."""

    image_key: str | None
    label_key: str | None
    label_field: str | None
    allow: Sequence[str]
    incomplete: str
    verify: bool


class TarBackend(ShardBackend):
    """Labelled images in tar shards, as webdataset writes them: members `key.jpg` and `key.cls`.

    Args:
        train: shards by path, brace pattern, glob, folder, or a list of these; or several such sources by name, to be
            mixed.
        val: shards, as above.
        test: the same; None for none.
        image_key: extension of the image member; None finds it.
        label_key: extension of the label member; None for cls, json or mask.png. One: a whole number from 0, or a class
            name, which are numbered in sorted order. Several: see `several.read_labels`; masks: `masks.decode_mask`.
        label_field: where the label is in the JSON of its member: a key, or several that are joined by '.'; None where
            it is all of the member.
        classes: see `ImageBackend`.
        allow: 'pickle' decodes pickled members.
        incomplete: samples that lack their image or label are an 'error', or 'skip' leaves them out and counts them.
        verify: compare what is read with the digests that `mlscale prepare` has recorded, where it has.
        arguments: see `ShardBackend`, `ImageBackend` and `Policy`; `augment` gets one image.
    """

    def __init__(
        self,
        train: Spec | Mapping[str, Spec],
        val: Spec,
        test: Spec | None = None,
        image_key: str | None = None,
        label_key: str | None = None,
        label_field: str | None = None,
        allow: Sequence[str] = (),
        incomplete: str = "error",
        verify: bool = True,
        classes: int | Sequence[str] | None = None,
        **arguments: Unpack[ShardArguments],
    ) -> None:
        super().__init__(train, val, test, classes=classes, **arguments)
        if unknown := [word for word in allow if word != "pickle"]:
            raise MLScaleError(
                f"data.allow has {unknown[0]!r}",
                where="data.allow",
                why="its only word is pickle",
                fix="data.allow=[]",
            )
        check_word("incomplete", incomplete, _INCOMPLETE)
        self._skip_incomplete, self._verify = incomplete == "skip", verify
        # `super().__init__` has refused unknown labels.
        self._label_key = label_key or ("json" if label_field else LABELS[self.labels])
        self._image_key, self._label_field, self._allow = image_key, label_field, tuple(allow)

    def _find_shards(self, spec: Spec, where: str) -> list[Shard]:
        return find_shards(spec, where=where, find_remote=self._find_remote)

    def _open_shards(self, split: str, shards: Sequence[Shard]) -> TarSource:
        where = self._get_key_path(split)
        return TarSource(
            build_index(shards, where=where, keep=self._index, verify=self._verify),
            image_key=self._image_key,
            label_key=self._label_key,
            label_field=self._label_field,
            allow=self._allow,
            where=where,
            # Several labels and masks are read by the code that decodes them.
            one=self.labels == "one",
            skip_incomplete=self._skip_incomplete,
        )

    @property
    def label_key(self) -> str:
        """The extension of the label member."""
        return self._label_key

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
