"""The samples that two versions of a data set share, by their content, and those whose labels differ."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.backend import Backend
from mlscale.report.text import format_count

_BATCH = 1024


@dataclass(frozen=True)
class SampleChanges:
    """The changes from one version of a split to another. Samples are equal if their content is, whatever their names.

    Attributes:
        same: samples that both have, with the same label.
        relabelled: samples that both have, with another label.
        added, removed: samples that only the second, or only the first, has.
        examples: for each kind of change the name of one on each side, '-' where it has none.
    """

    same: int
    relabelled: int
    added: int
    removed: int
    examples: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = {name: count for name, count in self.list_counts().items() if count}
        return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or format_count(0, "sample")

    def list_counts(self) -> dict[str, int]:
        """Return the counts by name."""
        return {"same": self.same, "relabelled": self.relabelled, "added": self.added, "removed": self.removed}


def find_changes(first: Backend, second: Backend, split: str) -> SampleChanges | None:
    """Return the changes of a split from `first` to `second`; None where samples are tensors already.

    A sample that a side has several times counts as often. All samples of both sides are read; 8 bytes of each digest
    are kept, so that of 10^6 samples two are confused with a chance of 3 in 10^8.
    """
    before, now = (_digest_samples(backend, split) for backend in (first, second))
    if before is None or now is None:
        return None
    (contents, labels), (others, other_labels) = before, now
    left, right = _pair_samples(contents, others)
    # Among equal samples the labels are compared as they come: a copy may have another one.
    differs = labels[left] != other_labels[right]
    removed = np.setdiff1d(np.arange(len(contents)), left)
    added = np.setdiff1d(np.arange(len(others)), right)
    examples = {}
    for kind, one, other in (
        ("relabelled", left[differs], right[differs]),
        ("added", None, added),
        ("removed", removed, None),
    ):
        names = [_name_first(backend, split, rows) for backend, rows in ((first, one), (second, other))]
        if names != ["-", "-"]:
            examples[kind] = (names[0], names[1])
    return SampleChanges(len(left) - int(differs.sum()), int(differs.sum()), len(added), len(removed), examples)


def _pair_samples(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of each pair of equal samples, (k,) each: of several copies the nth with the nth."""
    copies: dict[int, deque[int]] = defaultdict(deque)
    for row, digest in enumerate(second.tolist()):
        copies[digest].append(row)
    pairs = [(row, copies[digest].popleft()) for row, digest in enumerate(first.tolist()) if copies[digest]]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    return left, right


def _digest_samples(backend: Backend, split: str) -> tuple[NDArray[np.uint64], NDArray[np.uint64]] | None:
    """Return a digest of the content and one of the label of each sample, uint64 (n,)."""
    # Digests alone are kept: a data set may be larger than memory.
    contents: list[int] = []
    for raw in _iterate_raw_batches(backend, split):
        if raw is None:
            return None
        contents += [_hash_bytes(_convert_to_bytes(sample)) for sample in raw]
    labels = backend.read_labels(split)
    names = backend.facts().class_names
    # What a language model predicts is a part of the content.
    if labels is None:
        return np.array(contents, np.uint64), np.zeros(len(contents), np.uint64)
    texts = (_convert_label(label, names) for label in labels)
    return np.array(contents, np.uint64), np.array([_hash_bytes(text) for text in texts], np.uint64)


def _iterate_raw_batches(backend: Backend, split: str) -> Iterator[list[Any] | None]:
    # In batches, so that only one of them is in memory at a time.
    total = backend.count_samples(split)
    for at in range(0, total, _BATCH):
        yield backend.read_raw_samples(split, np.arange(at, min(at + _BATCH, total), dtype=np.int64))


def _convert_to_bytes(sample: object) -> bytes:
    if isinstance(sample, bytes):
        return sample
    if isinstance(sample, np.ndarray):
        return f"{sample.dtype} {sample.shape} ".encode() + np.ascontiguousarray(sample).tobytes()
    # Sorted: the order of a table's columns is not part of its rows.
    return json.dumps(sample, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _convert_label(label: Any, names: tuple[str, ...] | None) -> bytes:
    """Return a label as bytes; a class by its name, since its number depends on which others there are."""
    values = np.asarray(label)
    if names is not None and values.ndim == 0 and values.dtype.kind in "iu" and values < len(names):
        return names[int(values)].encode()
    if names is not None and values.ndim == 1 and len(values) == len(names):
        return "\0".join(name for name, has in zip(names, values, strict=True) if has).encode()
    return values.astype(np.float64).tobytes()


def _hash_bytes(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _name_first(backend: Backend, split: str, rows: NDArray[np.int64] | None) -> str:
    if rows is None or not len(rows):
        return "-"
    keys = backend.list_keys(split, rows[:1])
    return keys[0] if keys else f"sample {int(rows[0])}"
