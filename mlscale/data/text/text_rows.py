"""Labelled texts as rows of bytes, for text classification."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data.array_data import MemoryData, refuse_bad_samples
from mlscale.data.class_labels import Classes, encode_labels, find_classes, parse_label
from mlscale.data.data_facts import DataFacts
from mlscale.data.encoders.text_encoder import MOST_TOKENS, TextEncoder
from mlscale.data.order.policy import Policy
from mlscale.data.shards.sample_source import Label
from mlscale.data.split_rows import Array, SplitRows, compute_split_version
from mlscale.data.table_parsing.hold_out import hash_to_fraction
from mlscale.data.windows.text_window import read_text_window, write_text_window
from mlscale.data.windows.window_folder import WHERE
from mlscale.errors import MLScaleError


@dataclass
class LabelledTexts:
    """The texts of a split as a subclass reads them.

    Args:
        texts: bytes of each; only the first ones count that fit into a row.
        labels: of each; that of any other text for a bad one.
        keys: the name of each, unique.
        bad: what is wrong with a text that cannot be used, by its number.
    """

    texts: list[bytes] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)

    def add_text(self, text: bytes, label: Label, key: str) -> None:
        """Append a text."""
        self.texts.append(text)
        self.labels.append(label)
        self.keys.append(key)


class TextRows:
    """A split of texts.

    Args:
        given: the texts.
        labels: the class number of each, int64 (n,).
        encoder: of the texts.

    Attributes:
        texts: the part of each that fits into a row.
        labels: as given.
    """

    def __init__(self, given: LabelledTexts, labels: NDArray[np.int64], encoder: TextEncoder) -> None:
        length = encoder.length
        self.bad: Mapping[int, str] = given.bad
        self.texts, self._keys = [text[:length] for text in given.texts], given.keys
        self.labels, self._encoder = labels, encoder
        total = hashlib.sha256(b"texts 1" + labels.astype("<i8").tobytes())
        for text, key in zip(given.texts, given.keys, strict=True):
            total.update(f"{key}\0{len(text)}\0".encode("utf-8", "surrogateescape") + text)
        self.version = f"{total.hexdigest()[:16]} {length}"

    def __len__(self) -> int:
        return len(self.texts)

    def get_key(self, sample: int) -> str:
        return self._keys[sample]

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return x, int64 (n, length), bytes plus one and then 0, and y, int64 (n,)."""
        return self._encoder.encode_texts([self.texts[sample] for sample in samples.tolist()]), self.labels[samples]


class TextData(MemoryData):
    """Text classification on texts that a subclass reads.

    Args:
        length: bytes of a text that count; the rest is cut off.
        policy: batches, order and augmentation.
    """

    takes_windows: ClassVar[bool] = True

    def __init__(self, *, length: int, policy: Policy) -> None:
        super().__init__(policy)
        if not 1 <= length <= MOST_TOKENS:
            raise MLScaleError(
                f"data.length is {length}",
                where="data.length",
                why="it is a number of bytes from 1 to 1,048,576",
                fix="data.length=512",
            )
        self.length = length

    def encoder(self) -> TextEncoder:
        """Return the encoder of the texts."""
        return TextEncoder(self.length)

    def write_window(self, folder: Path, samples: Sequence[Any], labels: Sequence[Any]) -> None:
        """Write texts and their classes as Parquet; see `Backend.write_window`."""
        write_text_window(folder, samples, labels)

    def _read_window(self, folder: Path, facts: DataFacts) -> SplitRows:
        texts, names = read_text_window(folder)
        labels = [parse_label(name, facts.class_names is None) for name in names]
        classes = Classes(facts.num_classes or 0, facts.class_names, facts.class_counts)
        keys = [f"{number:06}" for number in range(len(texts))]
        given = LabelledTexts(texts, labels, keys)
        return TextRows(given, encode_labels(labels, classes, where=WHERE), self.encoder())

    def read_raw_rows(self, rows: SplitRows, numbers: NDArray[np.int64]) -> list[bytes]:
        """Return texts, as far as they count."""
        assert isinstance(rows, TextRows)
        return [rows.texts[row] for row in numbers.tolist()]

    def _load_texts(self) -> dict[str, LabelledTexts]:
        """Return the texts of train and val, and of test if there is one."""
        raise NotImplementedError

    def _get_key_path(self, split: str) -> str:
        """Return the key path of a split, for errors."""
        return f"data.{split}"

    def _read_splits(self) -> tuple[Mapping[str, SplitRows], DataFacts]:
        given = self._load_texts()
        for split, texts in given.items():
            if not texts.texts:
                raise MLScaleError(f"no {split} texts found", where=self._get_key_path(split), fix="add some")
        train = given["train"]
        usable = [label for number, label in enumerate(train.labels) if number not in train.bad]
        classes = find_classes(usable, where=self._get_key_path("train")) if usable else None
        splits: dict[str, SplitRows] = {}
        for split, texts in given.items():
            # A bad text takes any class: it is not trained on.
            first = next((label for label in usable), 0)
            labels = [first if number in texts.bad else label for number, label in enumerate(texts.labels)]
            is_held_out = split == "val" and self.may_stratify
            encoded = (
                np.zeros(len(labels), np.int64)
                if classes is None
                else encode_labels(labels, classes, where=self._get_key_path(split), is_held_out=is_held_out)
            )
            splits[split] = TextRows(texts, encoded, self.encoder())
            refuse_bad_samples(splits[split], self.policy, where=self._get_key_path(split))
        assert classes is not None  # else all were bad
        facts = DataFacts(
            sample=(self.length,),
            dtype="int64",
            num_classes=classes.count,
            length=self.length,
            vocab_size=self.encoder().vocabulary,
            train_samples=len(splits["train"]),
            val_samples=len(splits["val"]),
            version=compute_split_version(splits),
            class_names=classes.names,
            class_counts=classes.samples,
        )
        return splits, facts


def is_held_out(key: str, fraction: float) -> bool:
    """Return True if the item of this name is held out; it does not depend on other items."""
    return hash_to_fraction(key) < fraction
