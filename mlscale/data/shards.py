"""Users' own WebDataset shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mlscale.data.images import ImageData
from mlscale.data.index import KEEP, build_index
from mlscale.data.source import Source, TarSource
from mlscale.data.sources import Spec, find_shards
from mlscale.errors import MLScaleError

_ALLOWABLE = ("pickle", "pipe")


class WebDataset(ImageData):
    """Labelled images in tar shards, as webdataset writes them: members `key.jpg` and `key.cls`.

    Args:
        train: shards by path, brace pattern, glob, folder, or a list of these.
        val: the same.
        test: the same; None for none.
        image_key: extension of the image member; None finds it.
        label_key: extension of the label member: whole numbers from 0, or class names, which are numbered in sorted
            order.
        batch_size: samples of one optimizer step, over all ranks and forward passes.
        image_size: see `ImageData`.
        workers: threads that decode, per process.
        allow: 'pickle' decodes pickled members, 'pipe' runs `pipe:` commands.
        index: where the offsets of samples are kept once they were found: 'beside' the shards, for every user and
            machine; in the 'cache'; 'auto' reads what lies beside the shards and writes to the cache.
        seed: of order and augmentation.
        augment: `Augment`, or a callable on one image; training only.
    """

    def __init__(
        self,
        train: Spec,
        val: Spec,
        test: Spec | None = None,
        image_key: str | None = None,
        label_key: str = "cls",
        batch_size: int = 64,
        image_size: int | None = None,
        workers: int | str = "auto",
        allow: Sequence[str] = (),
        index: str = "auto",
        seed: int = 0,
        augment: object = None,
    ) -> None:
        super().__init__(batch_size=batch_size, image_size=image_size, workers=workers, seed=seed, augment=augment)
        if unknown := [word for word in allow if word not in _ALLOWABLE]:
            raise MLScaleError(
                f"data.allow has {unknown[0]!r}.",
                where="data.allow",
                why=f"the words are: {', '.join(_ALLOWABLE)}",
                fix="data.allow=[]",
            )
        if index not in KEEP:
            raise MLScaleError(
                f"data.index is {index!r}.",
                where="data.index",
                why=f"the words are: {', '.join(KEEP)}",
                fix="data.index=auto",
            )
        self._index = index
        self._specs: dict[str, Spec] = {"train": train, "val": val, **({} if test is None else {"test": test})}
        self._image_key, self._label_key, self._allow = image_key, label_key, tuple(allow)

    def _open(self) -> dict[str, Callable[[], Source]]:
        return {split: partial(self._open_split, split, spec) for split, spec in self._specs.items()}

    def _open_split(self, split: str, spec: Spec) -> Source:
        where = self._where(split)
        shards = find_shards(spec, where=where, allow=self._allow)
        return TarSource(
            build_index(shards, where=where, keep=self._index),
            image_key=self._image_key,
            label_key=self._label_key,
            allow=self._allow,
            where=where,
        )
