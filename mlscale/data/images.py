"""Labelled images with random access: what shards and folders have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data import weights
from mlscale.data.bad_samples import Stream
from mlscale.data.decoded import Decoded, probe
from mlscale.data.facts import DataFacts
from mlscale.data.labels import encode_labels, find_classes
from mlscale.data.module import OrderedData, local_ranks
from mlscale.data.policy import Policy
from mlscale.data.source import Source
from mlscale.data.stream import ImageStream
from mlscale.errors import MLScaleError, Problems, raise_all

T = TypeVar("T")

KEPT_BYTES = 1 << 30
"""Decoded samples of one split that a machine keeps in memory, over all its ranks; larger splits are decoded anew."""


class ImageData(OrderedData):
    """Image classification from sources that a subclass opens.

    Every image becomes float32 (C, H, W), normalised by the mean and the standard deviation of each channel over 512
    evenly spread training samples (`DataFacts.mean`, `.std`). Splits whose decoded samples fit into 1 GiB are kept in
    memory.

    Args:
        image_size: pixels of the square that images are brought to: the short side is resized, the middle cut out. None
            leaves them as they are, and they must all be of one size.
        others: see `OrderedData`.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        image_size: int | None,
        workers: int | str,
        seed: int,
        augment: object,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers, seed=seed, augment=augment, policy=policy)
        if image_size is not None and image_size < 1:
            raise MLScaleError(
                f"data.image_size is {image_size}.",
                where="data.image_size",
                why="it is a number of pixels, or null",
                fix="data.image_size=224",
            )
        self.image_size = image_size
        self._facts: DataFacts | None = None
        self._splits: dict[str, Decoded] = {}

    def facts(self) -> DataFacts:
        """Class count and balance, image shape, samples, version, normalisation. Read once, then remembered.

        Raises:
            MLScaleError: data is missing, empty, damaged or inconsistent; all problems at once.
        """
        if self._facts is None:
            self._splits, self._facts = self._read()
        return self._facts

    def decoded(self, split: str) -> Decoded:
        """The samples of a split ('train', 'val' or 'test') as they are stored: neither augmented nor normalised.

        Raises:
            MLScaleError: this data has no such split.
        """
        self.facts()
        if split not in self._splits:
            raise MLScaleError(f"This data has no {split} split.", where=self._where(split), fix="split=val")
        return self._splits[split]

    def _open(self) -> dict[str, Callable[[], Source]]:
        """How to open each split: at least train and val, in this order."""
        raise NotImplementedError

    def _where(self, split: str) -> str:
        """The key path that a split stands at, for errors."""
        return f"data.{split}"

    def _read(self) -> tuple[dict[str, Decoded], DataFacts]:
        opened = _all(self._open())
        train = opened["train"]
        classes = find_classes(train.raw_labels, where=self._where("train"))
        labels = _all(
            {
                split: partial(encode_labels, source.raw_labels, classes, where=self._where(split))
                for split, source in opened.items()
            }
        )
        shape = probe(
            train,
            size=self.image_size,
            threads=self._threads(),
            where=self._where("train"),
            skip_bad=self.policy.skip,
        )
        splits = {
            split: Decoded(
                source,
                labels[split],
                shape,
                size=self.image_size,
                memory=KEPT_BYTES // local_ranks(self.trainer),
                where=self._where(split),
            )
            for split, source in opened.items()
        }
        version = hashlib.sha256("|".join(f"{split}={source.version}" for split, source in opened.items()).encode())
        facts = DataFacts(
            sample=(shape.channels, shape.height, shape.width),
            num_classes=classes.count,
            channels=shape.channels,
            height=shape.height,
            width=shape.width,
            train_samples=len(train),
            val_samples=len(opened["val"]),
            version=version.hexdigest()[:16],
            class_names=classes.names,
            class_counts=classes.samples,
            mean=shape.mean,
            std=shape.std,
        )
        return splits, facts

    def _labels(self) -> NDArray[np.int64]:
        self.facts()
        return self._splits["train"].labels

    def _weights(self, named: str) -> NDArray[np.float64]:
        self.facts()
        data = self._splits["train"]
        if weights.is_file(named):
            return weights.from_file(named, data.keys(range(len(data))))
        return weights.from_members(self._members("train", named), named, data.source.key)

    def _members(self, split: str, extension: str) -> list[bytes]:
        """The bytes of a small member of every sample.

        Raises:
            MLScaleError: these samples have no members.
        """
        raise MLScaleError(
            f"These samples have no member '.{extension}'.",
            where="data.weights",
            why="each is a file of its own",
            fix="data.weights=weights.csv   (lines of key,weight)",
        )

    def _stream(self, split: str) -> tuple[Stream, int, str]:
        data = self.decoded(split)
        stream = ImageStream(
            data, workers=self._threads(), augment=self.augment if split == "train" else None, seed=self.seed
        )
        return stream, len(data), data.source.version


def _all(actions: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Do all of them, and raise all their problems together."""
    done: dict[str, T] = {}
    problems: list[MLScaleError] = []
    for name, action in actions.items():
        try:
            done[name] = action()
        except Problems as several:
            problems += several.problems
        except MLScaleError as problem:
            problems.append(problem)
    raise_all(problems)
    return done
