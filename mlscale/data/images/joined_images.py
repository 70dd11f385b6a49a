"""Stored images of several origins as one split: the original data, and windows of production."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.class_labels import Classes
from mlscale.data.images.masks import IGNORED, MaskSource, decode_mask
from mlscale.data.label_kinds import EncodedLabels
from mlscale.data.order.policy import Policy
from mlscale.data.shards.sample_source import Label, SampleSource
from mlscale.data.windows.image_window import encode_window_labels, open_image_window
from mlscale.data.windows.window_folder import ORIGINAL, arrange_windows, find_class_numbers, name_origin


class ImagePart(NamedTuple):
    """The images of one origin.

    Attributes:
        name: the prefix of their keys; the original data has none.
        source: where they are stored.
        labels: of each, by number; empty with masks.
        numbers: of the samples of `source` that count, int64 (n,).
    """

    name: str
    source: SampleSource
    labels: EncodedLabels
    numbers: NDArray[np.int64]

    @classmethod
    def take_all(cls, name: str, source: SampleSource, labels: EncodedLabels) -> ImagePart:
        """Return a part with all samples."""
        return cls(name, source, labels, np.arange(len(source), dtype=np.int64))


class JoinedSource:
    """The images of several parts, one after the other.

    Args:
        parts: at least one.
        ignored: classes whose pixels do not count in the masks of old parts, which are all but the last.
    """

    def __init__(self, parts: Sequence[ImagePart], ignored: NDArray[np.int64] | None = None) -> None:
        self.parts = list(parts)
        self._starts = np.cumsum([0, *(len(part.numbers) for part in parts)])[:-1]
        self._length = sum(len(part.numbers) for part in parts)
        self._ignored = np.zeros(0, np.int64) if ignored is None else ignored
        self.raw_labels: list[Label] = []  # they are numbers already
        total = hashlib.sha256(f"joined images 2 {self._ignored.tolist()}".encode())
        for part in parts:
            # Without the folder's name, as in `JoinedRows`.
            total.update(
                f"|{name_origin(part.name)}={part.source.version}".encode() + part.numbers.astype("<i8").tobytes()
            )
        self.version = total.hexdigest()[:16]

    def __len__(self) -> int:
        return self._length

    def get_key(self, sample: int) -> str:
        part, number = self._locate_sample(sample)
        key = part.source.get_key(number)
        return key if part.name == ORIGINAL else f"{part.name}/{key}"

    def read_image(self, sample: int) -> tuple[str, bytes]:
        part, number = self._locate_sample(sample)
        return part.source.read_image(number)

    def read_label(self, sample: int) -> tuple[str, bytes]:
        """Return extension and bytes of a sample's mask. May be called by several threads."""
        part, number = self._locate_sample(sample)
        extension, content = _require_masks(part.source).read_label(number)
        if not len(self._ignored) or part is self.parts[-1]:
            return extension, content
        mask = decode_mask(content, extension)
        return "npy", _write_array(np.where(np.isin(mask, self._ignored), np.uint8(IGNORED), mask))

    def compute_label_checksums(self) -> NDArray[np.uint32]:
        """Return the CRC-32 of each label member, (n,)."""
        checksums = [_require_masks(part.source).compute_label_checksums()[part.numbers] for part in self.parts]
        return np.concatenate(checksums)

    def list_origins(self) -> list[str]:
        """Return the name of the part of each sample."""
        return [part.name for part in self.parts for _ in range(len(part.numbers))]

    def _locate_sample(self, sample: int) -> tuple[ImagePart, int]:
        number = int(np.searchsorted(self._starts, sample, side="right")) - 1
        part = self.parts[number]
        return part, int(part.numbers[sample - int(self._starts[number])])


def join_image_windows(
    policy: Policy,
    opened: Mapping[str, SampleSource],
    labels: Mapping[str, EncodedLabels],
    *,
    kind: str,
    classes: Classes,
) -> tuple[dict[str, SampleSource], dict[str, EncodedLabels]]:
    """Return the splits of a retraining and their labels; see `arrange_windows`.

    Args:
        policy: with the windows.
        opened: the splits of the original data.
        labels: of these, by number.
        kind: of the labels: one, several or mask.
        classes: of the training split.
    """
    relabelled = find_class_numbers(policy.relabelled, classes.names, classes.count)

    def open_part(folder: Path) -> ImagePart:
        source = open_image_window(folder, kind)
        return ImagePart.take_all(folder.parent.name, source, encode_window_labels(source, kind, classes))

    arranged = arrange_windows(
        policy,
        {split: ImagePart.take_all(ORIGINAL, opened[split], labels[split]) for split in ("train", "val")},
        open_part,
        lambda part: _drop_classes(part, relabelled, kind),
        lambda part: len(part.numbers),
    )
    parts = {split: [part for _, part in named] for split, named in arranged.items()}
    sources: dict[str, SampleSource] = {
        split: JoinedSource(split_parts, relabelled if split == "train" and kind == "mask" else None)
        for split, split_parts in parts.items()
    }
    return sources, {split: _join_labels(split_parts) for split, split_parts in parts.items()}


def _drop_classes(part: ImagePart, classes: NDArray[np.int64], kind: str) -> ImagePart:
    # Of masks pixels are left out, and not images.
    if not len(classes) or kind == "mask":
        return part
    has_class = np.isin(part.labels, classes) if kind == "one" else part.labels[:, classes].any(1)
    return part._replace(numbers=np.flatnonzero(~has_class))


def _join_labels(parts: Sequence[ImagePart]) -> EncodedLabels:
    joined: Any = np.concatenate([part.labels[part.numbers] if len(part.labels) else part.labels for part in parts])
    return joined  # type: ignore[no-any-return]


def _require_masks(source: SampleSource) -> MaskSource:
    # Shards and tables hold masks; a folder has one class for each image.
    assert isinstance(source, MaskSource)
    return source


def _write_array(mask: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, mask, allow_pickle=False)
    return buffer.getvalue()
