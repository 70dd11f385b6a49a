"""The kinds of labels, `data.labels`: a class for each sample, several, or one for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlscale.data.augmentations.augmentation import Augment, BatchAugment, PerSampleAugment
from mlscale.data.augmentations.device_augment import refuse_on_device
from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.class_labels import Classes, encode_labels, find_classes
from mlscale.data.multiple_labels import SplitLabels, encode_multi_hot, find_label_classes, read_labels
from mlscale.data.order.policy import Policy
from mlscale.data.shards.sample_source import ListedLabels, SampleSource
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
