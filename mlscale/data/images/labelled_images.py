"""Labelled images with random access: the common part of shards and folders."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data import label_kinds as label_kinds
from mlscale.data.augmentations.augmentation import PerSampleAugment
from mlscale.data.backend import Backend
from mlscale.data.class_labels import Classes, compute_label_digest, join_label_digests
from mlscale.data.data_facts import DataFacts
from mlscale.data.data_job import count_local_ranks
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.images.decoded_cache import DecodedSamples, SampleShape
from mlscale.data.images.image_stream import ImageStream
from mlscale.data.images.joined_images import JoinedSource, join_image_windows
from mlscale.data.images.masks import DecodedMasks, MaskSource, find_mask_classes
from mlscale.data.images.sample_probe import DifferentSizesError, probe_shape
from mlscale.data.images.sample_transform import build_transform_executor
from mlscale.data.inspection.shared_rows import find_shared_images, format_shared_rows
from mlscale.data.order import sample_weights as weights
from mlscale.data.order.bad_samples import Stream, describe_tolerated, gather_tolerated
from mlscale.data.order.policy import Policy
from mlscale.data.shards.member_decoder import decode_sample
from mlscale.data.shards.sample_source import SampleSource
from mlscale.data.shards.system_files import report_once
from mlscale.data.windows.image_window import write_image_window
from mlscale.data.windows.window_folder import compute_window_mix
from mlscale.errors import MLScaleError, call_all

KEPT_BYTES = 1 << 30
"""Decoded samples of one split that a machine keeps in memory, over all its ranks; larger splits are decoded again."""


class ImageBackend(Backend):
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
        others: see `Backend`.
    """

    takes_windows: ClassVar[bool] = True
    decoder: ClassVar[str] = "mlscale"
    """What makes the pixels of training samples."""

    def __init__(
        self,
        policy: Policy,
        *,
        image_size: int | None,
        workers: int | str,
        labels: str = "one",
        classes: int | Sequence[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(policy, workers=workers)
        label_kinds.check_label_kind(labels, self.augment, self.policy)
        self.labels, self._given_classes = labels, classes
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
        self._splits: dict[str, DecodedSamples] = {}
        self._digests_of_labels: dict[str, str] = {}
        self._scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and std of a model's training data, to normalise by; what was read by others is read again."""
        self._scale = tuple(mean), tuple(std)
        if self._facts is not None and (self._facts.mean, self._facts.std) != self._scale:
            self._facts, self._splits = None, {}

    def facts(self) -> DataFacts:
        """Return class count and balance, image shape, samples, version, normalisation; read at the first call.

        Raises:
            MLScaleError: data is missing, empty, corrupt or inconsistent; all problems at once.
        """
        if self._facts is None:
            self._splits, self._facts = self._read_decoded_splits()
        return self._facts

    def encoder(self) -> ImageEncoder:
        """Return the encoder of stored images, as the training split has them."""
        facts, shape = self.facts(), self._splits["train"].shape
        return ImageEncoder(
            shape=(shape.channels, shape.height, shape.width),
            dtype=shape.dtype.name,
            is_resized=self.image_size is not None,
            max_pixels=self.max_pixels,
            mean=facts.mean,
            std=facts.std,
            decode_version=DECODE_VERSION,
        )

    def read_raw_samples(self, split: str, rows: NDArray[np.int64]) -> list[bytes | NDArray[Any]]:
        """Return stored images, undecoded; arrays of a format that has no mark of its own are decoded."""
        stored = map(self.get_decoded_split(split).source.read_image, rows.tolist())
        return [content if is_image_file(name) else decode_sample(content, name, None) for name, content in stored]

    def setup(self, stage: str) -> None:
        """Open the data; a fit reports validation images that are training images, too."""
        super().setup(stage)
        # Windows of production may repeat what was trained on, and a gate compares models on them.
        if stage == "fit" and not self.policy.windows and (self.trainer is None or self.trainer.is_global_zero):
            shared = find_shared_images(*(self.get_decoded_split(split).source for split in ("train", "val")))
            if shared is not None:
                report_once(format_shared_rows(shared))

    def write_window(self, folder: Path, samples: Sequence[Any], labels: Sequence[Any]) -> None:
        """Write images and their labels as shards; see `Backend.write_window`."""
        is_named = self.facts().class_names is not None
        write_image_window(folder, samples, labels, kind=self.labels, is_named=is_named)

    def _get_source_mix(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        if not self.policy.windows:
            return None
        source = self.get_decoded_split("train").source
        assert isinstance(source, JoinedSource)
        newest = len(source.parts[-1].numbers)
        left_out = sum(len(part.source) - len(part.numbers) for part in source.parts)
        return compute_window_mix(self.policy, len(source) - newest, newest, left_out)

    def list_keys(self, split: str, rows: NDArray[np.int64]) -> list[str]:
        """Return the names of samples."""
        return self.get_decoded_split(split).list_keys(rows.tolist())

    def list_splits(self) -> list[str]:
        """Return the names of the splits: 'train', 'val', and 'test' where there is one."""
        self.facts()
        return list(self._splits)

    def read_labels(self, split: str) -> NDArray[Any]:
        """Return class numbers, int64 (n,); 1 for each class that a sample has, uint8 (n, classes); of masks the CRC-32
        of each file, uint32 (n,)."""
        held = self.get_decoded_split(split)
        return held.labels if self.labels != "mask" else _read_label_checksums(held.source)

    def get_decoded_split(self, split: str) -> DecodedSamples:
        """Return the samples of a split ('train', 'val' or 'test') as stored: neither augmented nor normalised.

        Raises:
            MLScaleError: this data has no such split.
        """
        self.facts()
        if split not in self._splits:
            raise MLScaleError(f"this data has no {split} split", where=self._get_key_path(split), fix="split=val")
        return self._splits[split]

    def build_openers(self) -> Mapping[str, Callable[[], SampleSource]]:
        """Return the functions that open the splits: at least train and val, in this order."""
        raise NotImplementedError

    def _get_key_path(self, split: str) -> str:
        """Return the key path of a split, for errors."""
        return f"data.{split}"

    def _read_decoded_splits(self) -> tuple[dict[str, DecodedSamples], DataFacts]:
        # Every split is opened before an error is raised, which has the problems of all.
        opened = call_all(self.build_openers())
        where = {split: self._get_key_path(split) for split in opened}
        classes, labels = self._read_labels(opened, where)
        train = opened["train"]
        shape = probe_shape(
            train,
            size=self.image_size,
            threads=self._resolve_workers(),
            where=where["train"],
            skip_bad=self.policy.skip,
            max_pixels=self.max_pixels,
        )
        if self._scale is not None:
            # Channels and size stay those of this data.
            shape = replace(shape, mean=self._scale[0], std=self._scale[1])
        # After shape and scale are known: a model keeps those of the data that it was first trained on.
        if self.policy.windows:
            opened, labels = join_image_windows(self.policy, opened, labels, kind=self.labels, classes=classes)
            where = {split: self._get_key_path(split) for split in opened}
        splits = {
            split: DecodedSamples(
                source,
                labels[split],
                shape,
                size=self.image_size,
                # Ranks of a machine share its memory, and each keeps samples of its own.
                memory=KEPT_BYTES // count_local_ranks(self.trainer),
                where=where[split],
                masks=self._build_masks(source, shape, classes.count),
                max_pixels=self.max_pixels,
            )
            for split, source in opened.items()
        }
        self._digests_of_labels = {
            # Masks are read for this and not decoded.
            split: compute_label_digest(
                labels[split] if self.labels != "mask" else _read_label_checksums(source), classes.names
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
            train_samples=len(opened["train"]),
            val_samples=len(opened["val"]),
            version=version.hexdigest()[:16],
            class_names=classes.names,
            class_counts=classes.samples if self.labels == "mask" else _count_classes(labels["train"], classes),
            mean=shape.mean,
            std=shape.std,
            decode_version=DECODE_VERSION,
            max_pixels=self.max_pixels,
            label_digest=join_label_digests(self._digests_of_labels),
        )
        return splits, facts

    def _read_labels(
        self, opened: Mapping[str, SampleSource], where: Mapping[str, str]
    ) -> tuple[Classes, dict[str, label_kinds.EncodedLabels]]:
        if self.labels != "mask":
            return label_kinds.encode_splits(self.labels, opened, where)
        train = opened["train"]
        # Shards and tables hold masks: a folder has one class for each image.
        assert isinstance(train, MaskSource)
        classes = find_mask_classes(
            train,
            self._given_classes,
            threads=self._resolve_workers(),
            skip_bad=self.policy.skip,
            where=where["train"],
            max_pixels=self.max_pixels,
        )
        # Masks are read with their images, batch by batch.
        return classes, dict.fromkeys(opened, np.empty(0, np.int64))

    def _build_masks(self, source: SampleSource, shape: SampleShape, classes: int) -> DecodedMasks | None:
        if self.labels != "mask":
            return None
        assert isinstance(source, MaskSource)
        # They are kept where images are, in what those leave of the memory.
        memory = KEPT_BYTES // count_local_ranks(self.trainer) - len(source) * shape.nbytes
        return DecodedMasks(
            source,
            classes=classes,
            shape=(shape.height, shape.width),
            size=self.image_size,
            memory=max(0, memory),
            max_pixels=self.max_pixels,
        )

    def _get_label_digests(self) -> Mapping[str, str]:
        self.facts()
        return self._digests_of_labels

    def _read_class_numbers(self) -> NDArray[np.int64]:
        self.facts()
        return self._splits["train"].labels.astype(np.int64, copy=False)

    def _read_weights(self, named: str) -> NDArray[np.float64]:
        self.facts()
        data = self._splits["train"]
        if weights.is_weights_file(named):
            return weights.read_weights_file(named, data.list_keys(range(len(data))))
        members = self._read_weight_members("train", named)
        return weights.parse_weight_members(members, f".{named} member", data.source.get_key)

    def _read_weight_members(self, split: str, extension: str) -> list[bytes]:
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

    def _describe_order(self, version: str) -> dict[str, Any]:
        # Other pixels are another training run, even in the same order.
        return {**super()._describe_order(version), "decode_version": DECODE_VERSION, "decoder": self.decoder}

    def _report_tolerated(self) -> None:
        warnings = {
            f"{split} {data.source.get_key(sample)}": warning
            for split, data in self._splits.items()
            for sample, warning in sorted(data.tolerated.items())
        }
        # A collective operation: every rank calls it, before rank zero alone prints.
        warnings = gather_tolerated(warnings)
        if warnings and (self.trainer is None or self.trainer.is_global_zero):
            print(describe_tolerated(warnings), file=sys.stderr, flush=True)

    def _has_python_code(self) -> bool:
        return isinstance(self.augment, PerSampleAugment)

    def _open_stream(self, split: str) -> tuple[Stream, int, str]:
        data, workers = self.get_decoded_split(split), self._resolve_workers()
        augment = self.augment if split == "train" else None
        executor = self._executors.keep_executor(build_transform_executor(augment, self.policy.executor, workers))
        stream = ImageStream(data, workers=workers, augment=augment, seed=self.seed, executor=executor)
        return stream, len(data), data.source.version


def _read_label_checksums(source: SampleSource) -> NDArray[np.uint32]:
    assert isinstance(source, MaskSource)
    return source.compute_label_checksums()


def _count_classes(labels: label_kinds.EncodedLabels, classes: Classes) -> tuple[int, ...]:
    """Return the training samples of each class."""
    if labels.ndim == 1:
        return tuple(np.bincount(labels, minlength=classes.count).tolist())
    return tuple(labels.sum(0, dtype=np.int64).tolist())


def adopt_common_size(data: object) -> None:
    """Let images of several sizes be measured at the one that an error would suggest, and report it.

    Their mean and deviation need a size; their bytes, labels and order don't depend on it.
    """
    if not isinstance(data, ImageBackend) or data.image_size is not None:
        return
    try:
        data.facts()
    except DifferentSizesError as error:
        data.image_size = error.common_size
        report_once(f"data      {error.why}: mean and deviation are those at data.image_size={data.image_size}")
