"""The kinds of labels, `data.labels`: a class for each sample, several, or one for each pixel.

Several labels of a sample are a 0 or 1 for each class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.augmentations.augmentation import Augment, BatchAugment, PerSampleAugment
from mlscale.data.augmentations.device_augment import refuse_on_device
from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.class_labels import Classes, encode_labels, find_classes
from mlscale.data.order.policy import Policy
from mlscale.data.shards.member_decoder import decode_value
from mlscale.data.shards.sample_source import Label, ListedLabels, SampleSource
from mlscale.errors import MLScaleError, call_all

LABELS = {"one": "cls", "several": "json", "mask": "mask.png"}
"""The kinds of labels, each with the usual extension of its member."""

EncodedLabels = NDArray[np.int64] | NDArray[np.uint8]


def check_label_kind(labels: str, augment: BatchAugment | None, policy: Policy) -> None:
    """Raise if `labels` is unknown, or if augmentation or policy do not fit it.

    Raises:
        MLScaleError: one does not.
    """
    if labels not in LABELS:
        raise MLScaleError(
            f"data.labels is {labels!r}",
            where="data.labels",
            why=f"the words are: {', '.join(LABELS)}",
            fix="data.labels=one",
        )
    if labels != "one" and policy.sampling == "balanced":
        raise MLScaleError(
            f"data.sampling=balanced does not go with data.labels={labels}",
            where="data.sampling",
            why="it draws every class equally often, and a sample has no single class",
            fix="data.sampling=shuffle; or data.sampling=weighted data.weights=<file>",
        )
    # Only masks restrict the augmentation: it has to move the mask as it moves the image.
    if labels != "mask" or augment is None:
        return
    if isinstance(augment, Augment | RandomCrop) and augment.mixing is not None:
        raise MLScaleError(
            "images with masks are not mixed",
            where="augment.mixup, augment.cutmix",
            why="mixup and cutmix mix the labels of whole images; a pixel of a mask has one class",
            fix="augment.mixup=0 augment.cutmix=0, or augment=crop, augment=flip, augment=shift",
        )
    refuse_on_device(augment, "masks are moved with their images, in the loader")
    if isinstance(augment, PerSampleAugment):
        augment.check_pairs()


def encode_splits(
    labels: str, opened: Mapping[str, SampleSource], where: Mapping[str, str]
) -> tuple[Classes, dict[str, EncodedLabels]]:
    """Return the classes of the training split, and the labels of every split by number; not for masks.

    Args:
        labels: 'one' or 'several'.
        opened: the splits, train among them.
        where: the key path of each, for errors.

    Raises:
        MLScaleError: labels that can't be read, or do not go together; of all splits at once.
    """
    if labels == "one":
        classes = find_classes(opened["train"].raw_labels, where=where["train"])
        raw_labels = {name: source.raw_labels for name, source in opened.items()}
        return classes, call_all(
            {name: partial(encode_labels, raw, classes, where=where[name]) for name, raw in raw_labels.items()}
        )
    raw = call_all({name: partial(_read_several_labels, source, where[name]) for name, source in opened.items()})
    classes = find_label_classes(raw["train"], where=where["train"])
    return classes, call_all(
        {name: partial(encode_multi_hot, read, classes, where=where[name]) for name, read in raw.items()}
    )


def _read_several_labels(source: SampleSource, where: str) -> SplitLabels:
    # Shards and tables have lists of labels: a folder has one class for each image.
    assert isinstance(source, ListedLabels)
    return read_labels(*source.read_labels(), source.get_key, where=where)


Labels = list[Label]


class SplitLabels(NamedTuple):
    """The labels of a split.

    Attributes:
        labels: of each sample, each once, in the order in which they are written.
        entries: of each vector of 0 and 1, which has one for each class; None where labels are lists.
    """

    labels: list[Labels]
    entries: int | None


def read_labels(extension: str, contents: Sequence[bytes], key: Callable[[int], str], *, where: str) -> SplitLabels:
    """Return the labels of each sample.

    A `.json` member is a list of class numbers or of class names; a `.npy` member a vector of 0 and 1, as long as there
    are classes.

    Args:
        extension: of the members.
        contents: the member of each sample.
        key: the name of a sample.
        where: the key path of the split, for errors.

    Raises:
        MLScaleError: a member is neither, or vectors differ in length.
    """
    last = extension.rsplit(".", 1)[-1]
    if last not in ("json", "npy"):
        raise MLScaleError(
            f"several labels are not read from '.{extension}' members",
            where="data.label_key",
            why="a .json member is a list of class numbers or names, a .npy member a vector of 0 and 1",
            fix="data.label_key=json; or data.labels=one where each sample has a single class",
        )
    read: list[Labels] = []
    lengths: set[int] = set()
    for sample, content in enumerate(contents):
        try:
            value: Any = decode_value(content, extension)
            read.append(_parse_label_list(value) if last == "json" else _parse_label_vector(value, lengths))
        # json, numpy and webdataset's decoders each raise errors of their own.
        except Exception as error:
            raise MLScaleError(
                f"the labels of sample {key(sample)} cannot be read",
                where=where,
                why=f"{error} (its .{extension} member begins {content[:40]!r})",
                fix='write them as a list, such as [0, 3] or ["cat", "dog"]; [] for none',
            ) from error
    return SplitLabels(read, next(iter(lengths), None))


def find_label_classes(train: SplitLabels, *, where: str) -> Classes:
    """Return the classes of the training split; `samples` counts those that have each. A vector has an entry for a
    class that no sample has, too.

    Raises:
        MLScaleError: no sample has any, or what `find_classes` raises.
    """
    every = [label for sample_labels in train.labels for label in sample_labels]
    if not every:
        raise MLScaleError(
            "no training sample has a label", where=where, why="all lists are empty", fix="data.label_key=<a member>"
        )
    if train.entries is None:
        return find_classes(every, where=where)
    counts = Counter(every)
    return Classes(train.entries, None, tuple(counts[number] for number in range(train.entries)))


def encode_multi_hot(split: SplitLabels, classes: Classes, *, where: str) -> NDArray[np.uint8]:
    """Return 1 where a sample has a class and 0 elsewhere, uint8 (n, classes).

    Raises:
        MLScaleError: a label that the training split does not have, or vectors of another length.
    """
    labels = split.labels
    if split.entries not in (None, classes.count):
        raise MLScaleError(
            f"the vectors of labels have {split.entries} entries, and those of the training data {classes.count}",
            where=where,
            why="each has a 0 or 1 for every class",
            fix="write vectors of one length in every split",
        )
    counts = [len(sample_labels) for sample_labels in labels]
    numbers = encode_labels([label for sample_labels in labels for label in sample_labels], classes, where=where)
    hot = np.zeros((len(labels), classes.count), np.uint8)
    # `numbers` holds the labels of all samples one after the other, so each row number is repeated as often.
    hot[np.repeat(np.arange(len(labels)), counts), numbers] = 1
    return hot


def _parse_label_list(value: object) -> Labels:
    # bool is a subclass of int: [true, false] would be read as the classes 1 and 0.
    if not isinstance(value, list) or not all(isinstance(v, int | str) and not isinstance(v, bool) for v in value):
        raise ValueError("it is not a list of class numbers or names")
    # A label that is written twice counts once.
    return list(dict.fromkeys(value))


def _parse_label_vector(value: object, lengths: set[int]) -> Labels:
    vector = np.asarray(value)
    if vector.ndim != 1 or not np.isin(vector, (0, 1)).all():
        raise ValueError(f"it is not a vector of 0 and 1, but {vector.dtype} {vector.shape}")
    lengths.add(len(vector))
    if len(lengths) > 1:
        raise ValueError(f"vectors have {' and '.join(map(str, sorted(lengths)))} entries")
    return [int(number) for number in np.flatnonzero(vector)]
