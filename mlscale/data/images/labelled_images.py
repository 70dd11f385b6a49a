"""Labelled images with random access: the common part of shards and folders."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data import label_kinds as asked
from mlscale.data.class_labels import Classes, digest_labels, join_label_digests
from mlscale.data.data_facts import DataFacts
from mlscale.data.data_module import OrderedData, local_ranks
from mlscale.data.images.decoded_cache import Decoded, Shape, probe
from mlscale.data.images.fast_decoder import DECODE_VERSION
from mlscale.data.images.image_stream import ImageStream
from mlscale.data.images.masks import Masks, classes_of_masks
from mlscale.data.images.pil import MAX_PIXELS
from mlscale.data.order import sample_weights as weights
from mlscale.data.order.bad_samples import Stream, describe_tolerated, tolerated_over_ranks
from mlscale.data.order.policy import Policy
from mlscale.data.shards.sample_source import Source, TarSource
from mlscale.errors import MLScaleError, all_of

KEPT_BYTES = 1 << 30
"""Decoded samples of one split that a machine keeps in memory, over all its ranks; larger splits are decoded again."""


class ImageData(OrderedData):
    """Labelled images from sources that a subclass opens.

    Every image becomes float32 (C, H, W), normalised by the mean and the standard deviation of each channel over 512
    evenly spread training samples (`DataFacts.mean`, `.std`). Splits whose decoded samples fit into 1 GiB are kept in
    memory.

    Args:
        image_size: pixels of the square that images are brought to: the short side is resized, the middle cut out. None
            leaves them as they are, and they must all be of one size.
        labels: the labels of each image: 'one' class, 'several', or one for each pixel, by a 'mask'.
        classes: of masks: how many, or their names by number; None looks at every training mask.
        max_pixels: of a stored image or mask; larger ones are bad samples, and are not decoded.
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
        labels: str = "one",
        classes: int | Sequence[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers, seed=seed, augment=augment, policy=policy)
        asked.check(labels, self.augment, self.policy)
        self.labels, self._stated = labels, classes
        if image_size is not None and image_size < 1:
            raise MLScaleError(
                f"data.image_size is {image_size}",
                where="data.image_size",
                why="it is a number of pixels, or null",
                fix="data.image_size=224",
            )
        if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
            raise MLScaleError(
                f"data.max_pixels is {max_pixels!r}",
                where="data.max_pixels",
                why="it is the largest number of pixels, height × width, that a stored image may have",
                fix=f"data.max_pixels={MAX_PIXELS}",
            )
        self.image_size, self.max_pixels = image_size, max_pixels
        self._facts: DataFacts | None = None
        self._splits: dict[str, Decoded] = {}
        self._digests_of_labels: dict[str, str] = {}
        self._scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and std of a model's training data, to normalise by; only before anything is read."""
        self._scale = tuple(mean), tuple(std)

    def facts(self) -> DataFacts:
        """Return class count and balance, image shape, samples, version, normalisation; read at the first call.

        Raises:
            MLScaleError: data is missing, empty, corrupt or inconsistent; all problems at once.
        """
        if self._facts is None:
            self._splits, self._facts = self._read()
        return self._facts

    def decoded(self, split: str) -> Decoded:
        """Return the samples of a split ('train', 'val' or 'test') as stored: neither augmented nor normalised.

        Raises:
            MLScaleError: this data has no such split.
        """
        self.facts()
        if split not in self._splits:
            raise MLScaleError(f"this data has no {split} split", where=self._where(split), fix="split=val")
        return self._splits[split]

    def _open(self) -> dict[str, Callable[[], Source]]:
        """Return the functions that open the splits: at least train and val, in this order."""
        raise NotImplementedError

    def _where(self, split: str) -> str:
        """Return the key path of a split, for errors."""
        return f"data.{split}"

    def _read(self) -> tuple[dict[str, Decoded], DataFacts]:
        # Every split is opened before an error is raised, which has the problems of all.
        opened = all_of(self._open())
        where = {split: self._where(split) for split in opened}
        classes, labels = self._read_labels(opened, where)
        train = opened["train"]
        shape = probe(
            train,
            size=self.image_size,
            threads=self._threads(),
            where=where["train"],
            skip_bad=self.policy.skip,
            max_pixels=self.max_pixels,
        )
        if self._scale is not None:
            # Channels and size stay those of this data.
            shape = replace(shape, mean=self._scale[0], std=self._scale[1])
        splits = {
            split: Decoded(
                source,
                labels[split],
                shape,
                size=self.image_size,
                # Ranks of a machine share its memory, and each keeps samples of its own.
                memory=KEPT_BYTES // local_ranks(self.trainer),
                where=where[split],
                masks=self._masks(source, shape, classes.count),
                max_pixels=self.max_pixels,
            )
            for split, source in opened.items()
        }
        self._digests_of_labels = {
            # Masks are read for this and not decoded.
            split: digest_labels(labels[split] if self.labels != "mask" else _checksums(source), classes.names)
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
            decode_version=DECODE_VERSION,
            max_pixels=self.max_pixels,
            label_digest=join_label_digests(self._digests_of_labels),
        )
        return splits, facts

    def _read_labels(
        self, opened: Mapping[str, Source], where: Mapping[str, str]
    ) -> tuple[Classes, dict[str, asked.Encoded]]:
        if self.labels != "mask":
            return asked.encoded(self.labels, opened, where)
        train = opened["train"]
        # Only shards hold masks: a folder has one class for each image.
        assert isinstance(train, TarSource)
        classes = classes_of_masks(
            train,
            self._stated,
            threads=self._threads(),
            skip_bad=self.policy.skip,
            where=where["train"],
            max_pixels=self.max_pixels,
        )
        # Masks are read with their images, batch by batch.
        return classes, dict.fromkeys(opened, np.empty(0, np.int64))

    def _masks(self, source: Source, shape: Shape, classes: int) -> Masks | None:
        if self.labels != "mask":
            return None
        assert isinstance(source, TarSource)
        # They are kept where images are, in what those leave of the memory.
        memory = KEPT_BYTES // local_ranks(self.trainer) - len(source) * shape.nbytes
        return Masks(
            source,
            classes=classes,
            shape=(shape.height, shape.width),
            size=self.image_size,
            memory=max(0, memory),
            max_pixels=self.max_pixels,
        )

    def _label_digests(self) -> Mapping[str, str]:
        self.facts()
        return self._digests_of_labels

    def _labels(self) -> NDArray[np.int64]:
        self.facts()
        return self._splits["train"].labels.astype(np.int64, copy=False)

    def _weights(self, named: str) -> NDArray[np.float64]:
        self.facts()
        data = self._splits["train"]
        if weights.is_file(named):
            return weights.from_file(named, data.keys(range(len(data))))
        return weights.from_members(self._members("train", named), named, data.source.key)

    def _members(self, split: str, extension: str) -> list[bytes]:
        """Return the bytes of a small member of every sample.

        Raises:
            MLScaleError: these samples have no members.
        """
        raise MLScaleError(
            f"these samples have no member '.{extension}'",
            where="data.weights",
            why="each is a file of its own",
            fix="data.weights=weights.csv   (lines of key,weight)",
        )

    def _order_of(self, version: str) -> dict[str, Any]:
        # Other pixels are another training run, even in the same order.
        return {**super()._order_of(version), "decode_version": DECODE_VERSION}

    def _report_tolerated(self) -> None:
        found = {
            f"{split} {data.source.key(sample)}": warning
            for split, data in self._splits.items()
            for sample, warning in sorted(data.tolerated.items())
        }
        # A collective operation: every rank calls it, before rank zero alone prints.
        found = tolerated_over_ranks(found)
        if found and (self.trainer is None or self.trainer.is_global_zero):
            print(describe_tolerated(found), file=sys.stderr, flush=True)

    def _stream(self, split: str) -> tuple[Stream, int, str]:
        data = self.decoded(split)
        stream = ImageStream(
            data, workers=self._threads(), augment=self.augment if split == "train" else None, seed=self.seed
        )
        return stream, len(data), data.source.version


def _checksums(source: Source) -> NDArray[np.uint32]:
    assert isinstance(source, TarSource)
    return source.label_checksums()
