"""Labelled texts as rows of bytes, for text classification; and those of a user's table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from mlscale.data.array_data import MemoryData, refuse_bad_samples
from mlscale.data.class_labels import Classes, are_numbers, encode_labels, find_classes, parse_label
from mlscale.data.data_facts import DataFacts
from mlscale.data.encoders.text_encoder import MOST_TOKENS, PADDING, TextEncoder
from mlscale.data.encoders.token_encoders import TokenTextEncoder
from mlscale.data.encoders.tokenizer import Tokenizer, check_has_tokenizer
from mlscale.data.inspection.leaks import describe_split_leaks
from mlscale.data.order.policy import Policy, TolerantPolicyArguments
from mlscale.data.shards.sample_source import Label
from mlscale.data.split_rows import Array, SplitRows, compute_split_version
from mlscale.data.table_parsing.columns import DataTable, Texts, format_texts
from mlscale.data.table_parsing.hold_out import HoldOut, check_fraction
from mlscale.data.table_parsing.table_files import read_table
from mlscale.data.text.token_arrays import encode_in_parts, join_rows
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
        self.texts, self._keys = [encoder.cut_text(text) for text in given.texts], given.keys
        self.labels, self._encoder = labels, encoder
        total = hashlib.sha256(b"texts 1" + labels.astype("<i8").tobytes())
        for text, key in zip(given.texts, given.keys, strict=True):
            total.update(f"{key}\0{len(text)}\0".encode("utf-8", "surrogateescape") + text)
        self.version = f"{total.hexdigest()[:16]} {length}"
        self._tokens = None
        if isinstance(encoder, TokenTextEncoder):
            self.version += f" {encoder.tokenizer.digest}"
            # Once and not for each batch: a tokenizer takes a hundred times longer than to copy bytes.
            rows = encode_in_parts(self.texts, lambda part: (row[row != PADDING] for row in encoder.encode_texts(part)))
            self._tokens = join_rows(rows, encoder.vocabulary)

    def __len__(self) -> int:
        return len(self.texts)

    def get_key(self, sample: int) -> str:
        return self._keys[sample]

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return x, int64 (n, length), tokens and then 0, and y, int64 (n,)."""
        if self._tokens is None:
            encoded = self._encoder.encode_texts([self.texts[sample] for sample in samples.tolist()])
            return encoded, self.labels[samples]
        # Only as many are unpacked as a batch has: padded rows of all texts may not fit into memory.
        x, ends = np.full((len(samples), self._encoder.length), PADDING, np.int64), self._tokens.ends
        for row, sample in zip(x, samples.tolist(), strict=True):
            tokens = self._tokens.take_span(int(ends[sample - 1]) if sample else 0, int(ends[sample]))
            row[: len(tokens)] = tokens
        return x, self.labels[samples]


class TextData(MemoryData):
    """Text classification on texts that a subclass reads.

    Args:
        length: tokens of a text that count, bytes without a tokenizer; the rest is cut off.
        policy: batches, order and augmentation.
        tokenizer: the file of a tokenizer; None: tokens are bytes.
        special_tokens: the names of its special tokens by role; None for the usual names.
    """

    takes_windows: ClassVar[bool] = True

    def __init__(
        self,
        *,
        length: int,
        policy: Policy,
        tokenizer: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(policy)
        if not 1 <= length <= MOST_TOKENS:
            raise MLScaleError(
                f"data.length is {length}",
                where="data.length",
                why=f"it is a number of {'bytes' if tokenizer is None else 'tokens'} from 1 to 1,048,576",
                fix="data.length=512",
            )
        check_has_tokenizer(tokenizer, special_tokens)
        self.length, self.tokenizer_path, self.special_tokens = length, tokenizer, special_tokens

    def encoder(self) -> TextEncoder:
        """Return the encoder of the texts."""
        return self._encoder

    @cached_property
    def _encoder(self) -> TextEncoder:
        if self.tokenizer_path is None:
            return TextEncoder(self.length)
        tokenizer = Tokenizer.load_file(self.tokenizer_path, self.special_tokens, where="data.tokenizer")
        if (around := tokenizer.count_template_tokens()) >= self.length:
            raise MLScaleError(
                f"data.length is {self.length}, and the tokenizer puts {around} tokens around each text",
                where="data.length",
                fix="data.length=512",
            )
        return TokenTextEncoder(self.length, tokenizer)

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
                key = self._get_key_path(split)
                raise MLScaleError(f"no {split} texts found", where=key, fix=f"{key}=<files with texts>")
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
        encoder = self.encoder()
        facts = DataFacts(
            sample=(self.length,),
            dtype="int64",
            num_classes=classes.count,
            length=self.length,
            vocab_size=self.encoder().vocabulary,
            tokenizer=encoder.tokenizer.digest if isinstance(encoder, TokenTextEncoder) else None,
            train_samples=len(splits["train"]),
            val_samples=len(splits["val"]),
            version=compute_split_version(splits),
            class_names=classes.names,
            class_counts=classes.samples,
        )
        return splits, facts


class TextTable(TextData):
    """Your own labelled texts: a CSV, Parquet or JSON Lines file with a column of texts and one of labels.

    Args:
        train: paths or globs of `.csv`, `.tsv`, `.parquet` or `.jsonl` files.
        text: the column of texts.
        label: the column of labels.
        val: the same as `train`, for validation; None holds out rows, by a hash of the text: equal texts stay together.
        test: the same; None for none.
        val_fraction: part of the rows that is held out where `val` is None.
        group_on: a column; rows with the same value in it stay on one side.
        time_on: a column of times; the latest rows are held out.
        stratify: hold out the same part of each class.
        length: tokens of a text that count, bytes of UTF-8 without a tokenizer; the rest is cut off.
        tokenizer: the file of a tokenizer; None: tokens are bytes.
        special_tokens: the names of its special tokens by role; None for the usual names.
        policy: see `Policy`; `augment` gets one text, int64 (length,). A bad sample is a row without a text or a label.
    """

    def __init__(
        self,
        train: str | Sequence[str],
        text: str = "text",
        label: str = "label",
        val: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        val_fraction: float = 0.2,
        group_on: str | None = None,
        time_on: str | None = None,
        stratify: bool = False,
        length: int = 512,
        tokenizer: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        super().__init__(length=length, policy=Policy(**policy), tokenizer=tokenizer, special_tokens=special_tokens)
        self._columns, self._train, self._others = (text, label), train, {"val": val, "test": test}
        self.hold_out = HoldOut(check_fraction(val_fraction), group_on, time_on, stratify)
        self.hold_out.check_settings(has_val=val is not None)

    def _load_texts(self) -> dict[str, LabelledTexts]:
        times = [self.hold_out.time_on] if self.hold_out.time_on else []
        first = read_table(self._train, where="data.train", times=times)
        others = {
            split: read_table(paths, where=f"data.{split}", texts=first.texts, times=times)
            for split, paths in self._others.items()
            if paths is not None
        }
        first.require_columns({"data.text": self._columns[:1], "data.label": self._columns[1:]})
        # By the training split alone: in another one a class may be missing.
        numbered = are_numbers(self._read_label_names(first))
        if "val" in others:
            self.split_leaks = describe_split_leaks(first, others["val"], self.hold_out.group_on, self.hold_out.time_on)
            tables = {"train": first, **others}
        else:
            contents = [text or "" for text in format_texts(first.get_column(self._columns[0], where="data.text"))]
            self.may_stratify = self.hold_out.is_by_content
            held = self.hold_out.choose_rows(first, contents, self._read_label_names(first))
            tables = {"train": first.select_rows(~held), "val": first.select_rows(held), **others}
        return {split: self._collect_texts(table, numbered) for split, table in tables.items()}

    def _read_label_names(self, table: DataTable) -> Texts:
        return format_texts(table.get_column(self._columns[1], where="data.label"))

    def _collect_texts(self, table: DataTable, numbered: bool) -> LabelledTexts:
        text, label = self._columns
        texts = format_texts(table.get_column(text, where="data.text"))
        labelled_texts = LabelledTexts()
        for row, (one, name, key) in enumerate(zip(texts, self._read_label_names(table), table.keys, strict=True)):
            labelled_texts.add_text(
                (one or "").encode("utf-8", "surrogateescape"), parse_label(name or "", numbered), key
            )
            if not (one or "").strip() or name is None:
                labelled_texts.bad[row] = f"{text if not (one or '').strip() else label} is missing"
        return labelled_texts
