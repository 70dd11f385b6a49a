"""Labelled texts in a user's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

from mlscale.data.class_labels import are_numbers, parse_label
from mlscale.data.inspection.leaks import describe_split_leaks
from mlscale.data.order.policy import Policy, TolerantPolicyArguments
from mlscale.data.table_parsing.columns import DataTable, Texts, format_texts
from mlscale.data.table_parsing.hold_out import HoldOut, check_fraction
from mlscale.data.table_parsing.table_files import read_table
from mlscale.data.text.text_rows import LabelledTexts, TextData


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
