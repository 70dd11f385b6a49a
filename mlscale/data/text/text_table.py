"""Labelled texts in a user's table, and Debian's fortunes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from mlscale.data.class_labels import are_numbers, parse_label
from mlscale.data.inspection.leaks import describe_split_leaks
from mlscale.data.order.policy import Policy, PolicyArguments, TolerantPolicyArguments
from mlscale.data.table_parsing.columns import DataTable, Texts, format_texts
from mlscale.data.table_parsing.hold_out import HoldOut, check_fraction
from mlscale.data.table_parsing.table_files import read_table
from mlscale.data.text.text_rows import LabelledTexts, TextData, is_held_out
from mlscale.errors import Exit, MLScaleError

FORTUNES = Path("/usr/share/games/fortunes")


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


class Fortunes(TextData):
    """Debian's fortunes, to classify by file. (Package fortunes-min or fortunes; various licences.)

    Every text counts once; of several files that have it the first keeps it. A part is held out by a hash of the text.

    Args:
        root: the folder of the files.
        least: texts that a file must have to be a class.
        val_fraction: part that is held out.
        others: see `TextTable`.
        policy: see `Policy`.
    """

    def __init__(
        self,
        root: str = str(FORTUNES),
        least: int = 50,
        val_fraction: float = 0.2,
        length: int = 512,
        **policy: Unpack[PolicyArguments],
    ) -> None:
        super().__init__(length=length, policy=Policy(**policy))
        self.root, self.least, self.val_fraction = Path(root).expanduser(), least, check_fraction(val_fraction)

    def _get_key_path(self, split: str) -> str:
        return "data.root"

    def _load_texts(self) -> dict[str, LabelledTexts]:
        labelled_texts, seen = LabelledTexts(), set[bytes]()
        for path in sorted(self.root.glob("*")) if self.root.is_dir() else []:
            if path.suffix or not path.is_file():  # .dat is an index, .u8 another name of the same file
                continue
            fortunes = [fortune for fortune in dict.fromkeys(_split_fortunes(path)) if fortune not in seen]
            # Those of a file that is too small as well: the first file keeps a text, whatever its size.
            seen.update(fortunes)
            for number, fortune in enumerate(fortunes if len(fortunes) >= self.least else []):
                labelled_texts.add_text(fortune, path.name, f"{path.name}/{number}")
        if len(set(labelled_texts.labels)) < 2:
            raise MLScaleError(
                "no fortunes to classify",
                where="data=fortunes",
                why=f"{self.root} has fewer than two files of {self.least} sayings or more",
                fix="apt install fortunes   (Debian, Ubuntu)\nor data.root=<a folder of files, % between texts>",
                exit=Exit.ENVIRONMENT,
            )
        train, val = hold_out_texts(labelled_texts, self.val_fraction)
        return {"train": train, "val": val}


def hold_out_texts(given: LabelledTexts, fraction: float) -> tuple[LabelledTexts, LabelledTexts]:
    """Return training and held-out texts, by a hash of each: the same whatever other texts there are."""
    sides = LabelledTexts(), LabelledTexts()
    for number, (text, label, key) in enumerate(zip(given.texts, given.labels, given.keys, strict=True)):
        side = sides[is_held_out(text.decode("utf-8", "surrogateescape"), fraction)]
        if number in given.bad:
            side.bad[len(side.texts)] = given.bad[number]
        side.add_text(text, label, key)
    return sides


def _split_fortunes(path: Path) -> Iterator[bytes]:
    """Yield the texts between lines of a single %."""
    # A line end before each line, so that a % in the first or last line divides as well.
    for fortune in b"".join(b"\n" + line for line in path.read_bytes().splitlines()).split(b"\n%\n"):
        if text := fortune.removesuffix(b"\n%").strip():
            yield text
