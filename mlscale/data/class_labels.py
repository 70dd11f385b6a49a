"""Conversion of labels, as they are written, to class numbers 0 to n-1."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.shards.sample_source import Label
from mlscale.errors import MLScaleError


@dataclass(frozen=True)
class Classes:
    """The classes of the training split.

    Args:
        count: how many there are.
        names: their names by number, None where labels are numbers.
        samples: training samples of each, (count,).
    """

    count: int
    names: tuple[str, ...] | None
    samples: tuple[int, ...]


def are_numbers(texts: Iterable[str | None]) -> bool:
    """Return True if these training labels, as texts, are class numbers from 0; None is a missing label."""
    present = {text for text in texts if text is not None}
    return present == {str(number) for number in range(len(present))}


def parse_label(text: str, numbered: bool) -> Label:
    """Return a label of any split: a number if the training labels are numbers (see `are_numbers`), else a name."""
    # A text among numbers stays a text, so that `encode_labels` reports it with the labels that are known.
    return int(text) if numbered and text.isdecimal() else text


def find_classes(labels: Sequence[Label], *, where: str) -> Classes:
    """Return the classes of the training labels: numbers stay as they are, names are numbered in sorted order.

    Raises:
        MLScaleError: numbers and names are mixed, a number is negative, or a number below the largest is missing.
    """
    counts = Counter(labels)
    texts = sorted(label for label in counts if isinstance(label, str))
    numbers = sorted(label for label in counts if isinstance(label, int))
    if texts and numbers:
        raise MLScaleError(
            "some labels are numbers and some are names",
            where=where,
            why=f"{sum(counts[n] for n in numbers)} are numbers (such as {numbers[0]}), "
            f"{sum(counts[t] for t in texts)} are names (such as {texts[0]!r})",
            fix="write all labels as numbers from 0, or all as names",
        )
    if texts:
        return Classes(len(texts), tuple(texts), tuple(counts[text] for text in texts))
    if numbers[0] < 0:
        raise _build_negative_error(counts, numbers, where)
    # Bounded: a label such as 10^12 must not create a range of that size.
    missing = sorted(set(range(min(numbers[-1] + 1, 2 * len(numbers) + 10))) - set(numbers))
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise MLScaleError(
            f"the labels run to {numbers[-1]}, but no training sample has label {shown}",
            where=where,
            why=f"classes are numbered 0 to n-1, and {len(numbers)} labels occur, from {numbers[0]} to {numbers[-1]}",
            fix=f"renumber the labels 0 to {len(numbers) - 1}, or write the classes' names instead",
        )
    return Classes(len(numbers), None, tuple(counts[number] for number in numbers))


def encode_labels(
    labels: Sequence[Label], classes: Classes, *, where: str, is_held_out: bool = False
) -> NDArray[np.int64]:
    """Return the class numbers of labels, int64 (n,).

    Args:
        labels: of the samples.
        classes: of the training split.
        where: the key path of the split, for errors.
        is_held_out: the split was held out of the training data by a hash, which `data.stratify` changes.

    Raises:
        MLScaleError: a label that the training split does not have.
    """
    numbers: Mapping[Label, int] = (
        {number: number for number in range(classes.count)}
        if classes.names is None
        else {name: number for number, name in enumerate(classes.names)}
    )
    unknown = Counter(label for label in labels if label not in numbers)
    if unknown:
        if negative := sorted(label for label in unknown if isinstance(label, int) and label < 0):
            raise _build_negative_error(unknown, negative, where)
        shown = ", ".join(f"{label!r} ({count} samples)" for label, count in unknown.most_common(5))
        known = f"0 to {classes.count - 1}" if classes.names is None else ", ".join(classes.names[:10])
        raise MLScaleError(
            f"{sum(unknown.values())} of {len(labels)} samples have a label that the training data does not have",
            where=where,
            why=f"{shown}{', …' if len(unknown) > 5 else ''}; the training data has {classes.count} classes: {known}",
            fix="data.stratify=true, which keeps one of each class in training; or take rare classes out of data.train"
            if is_held_out
            else "take the classes out of this split, or add samples of them to data.train",
        )
    return np.fromiter((numbers[label] for label in labels), np.int64, len(labels))


def compute_label_digest(labels: NDArray[Any], names: Sequence[str] | None = None) -> str:
    """Return the digest of a split's labels, which the data version does not cover and a resumed run relies on.

    Args:
        labels: of each sample, in order; numbers of any shape.
        names: of the classes by number, where they have names.
    """
    # 1 is the version of this digest; values are little-endian, so that it is the same on every machine.
    values = np.ascontiguousarray(labels)
    total = hashlib.sha256(f"labels 1 {values.dtype.newbyteorder('<').str} {values.shape}".encode())
    total.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    # Names may be those of folders, whose bytes need not be UTF-8.
    total.update("\0".join(names or ()).encode("utf-8", "surrogateescape"))
    return total.hexdigest()[:16]


def join_label_digests(digests: Mapping[str, str]) -> str | None:
    """Return the digest of all splits' labels; None where there are none."""
    if not digests:
        return None
    return hashlib.sha256("|".join(f"{split}={digest}" for split, digest in digests.items()).encode()).hexdigest()[:16]


def _build_negative_error(counts: Mapping[Label, int], numbers: Sequence[int], where: str) -> MLScaleError:
    negative = [number for number in numbers if number < 0]
    return MLScaleError(
        f"{sum(counts[number] for number in negative)} samples have a negative label",
        where=where,
        why=f"the smallest is {negative[0]}; classes are numbered 0 to n-1",
        fix="drop these samples, or give them a class of their own",
    )
