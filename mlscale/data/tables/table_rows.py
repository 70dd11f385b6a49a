"""Rows of tables, for classification and regression."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.config.names.suggest import format_override
from mlscale.data.array_data import MemoryData, refuse_bad_samples
from mlscale.data.class_labels import Classes, are_numbers, encode_labels, find_classes, parse_label
from mlscale.data.data_facts import DataFacts
from mlscale.data.encoders.table_columns import NumberColumn
from mlscale.data.encoders.table_encoder import EncodedTable, TableEncoder
from mlscale.data.inspection.leaks import find_leaking_columns, format_leaking_column
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.order.policy import Policy
from mlscale.data.shards.sample_source import Label
from mlscale.data.shards.system_files import report_once
from mlscale.data.split_rows import Array, SplitRows, compute_split_version
from mlscale.data.table_parsing.columns import (
    Column,
    DataTable,
    Texts,
    are_codes,
    combine_number_keys,
    format_texts,
    format_values,
    mark_missing,
    read_column_units,
    separate_numbers,
    suggest_number_keys,
)
from mlscale.data.table_parsing.table_form import USUAL_FORM
from mlscale.data.windows.table_window import read_table_window, write_table_window
from mlscale.data.windows.window_folder import WHERE as WINDOWS
from mlscale.errors import MLScaleError
from mlscale.task_types.task_type import TargetColumn

_MAX_CLASSES = 1000
_INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")
"""Names that pandas gives an index without one, in CSV files, those that were written again, and Parquet."""


class TableRows:
    """A split of encoded rows.

    Args:
        table: the rows as they were read.
        x: float32 (n, features).
        y: class numbers, int64 (n,), or numbers, float32 (n, targets).
        bad: what is wrong with a row that cannot be used, by its number.
    """

    def __init__(self, table: DataTable, x: NDArray[np.float32], y: Array, bad: Mapping[int, str]) -> None:
        self.bad, self._keys, self.x, self.labels, self.table = bad, table.keys, x, y, table
        total = hashlib.sha256(b"table 1")
        for name, column in table.columns.items():
            total.update(f"{name}\0{len(table)}\0".encode("utf-8", "surrogateescape"))
            total.update("\0".join(format_values(column)).encode("utf-8", "surrogateescape"))
        total.update(x.astype("<f4").tobytes())  # columns may be left out, or read in another way
        self.version = total.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._keys)

    def get_key(self, sample: int) -> str:
        return self._keys[sample]

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return x, float32 (n, features), and y, int64 (n,) or float32 (n, targets)."""
        return self.x[samples], self.labels[samples]


class TabularData(MemoryData):
    """Classification or regression on the rows of tables that a subclass has.

    Numbers are standardised by the training split, texts become a feature for each category that training has, missing
    numbers its median, with a second feature that marks them. Unknown categories are counted in `counted`.

    Args:
        target: the column, or columns of numbers, to predict.
        target_type: 'class', 'number', or 'auto': texts, truth values and whole numbers from 0 to n-1 are classes.
        ignore: columns to leave out.
        categorical: columns of numbers that are names of categories.
        policy: batches, order and augmentation.
        units: of columns of numbers, features or targets, see `read_column_units`; nothing is computed with them.

    Attributes:
        feature_names: of each feature, once the data is read.
    """

    takes_windows: ClassVar[bool] = True

    def __init__(
        self,
        *,
        target: str | Sequence[str],
        target_type: str,
        ignore: Sequence[str],
        categorical: Sequence[str],
        policy: Policy,
        units: Mapping[str, str] | str | None = None,
    ) -> None:
        super().__init__(policy)
        self.targets = (target,) if isinstance(target, str) else tuple(target)
        if target_type not in ("auto", "class", "number") or (target_type == "class" and len(self.targets) > 1):
            raise MLScaleError(
                f"data.target_type is {target_type!r} with {len(self.targets)} target columns",
                where="data.target_type",
                why="it is one of: auto, class, number; a class is a single column",
                fix="data.target_type=auto",
            )
        self.target_type, self.ignore, self.categorical = target_type, tuple(ignore), tuple(categorical)
        self.units = read_column_units(units)
        self.form = USUAL_FORM
        self._encoder: TableEncoder | None = None
        self.feature_names: tuple[str, ...] = ()
        self._unknown: dict[str, dict[str, int]] = {}

    def _read_tables(self) -> dict[str, DataTable]:
        """Return the tables of train and val, and of test if there is one."""
        raise NotImplementedError

    def has_classes(self, targets: Sequence[Column]) -> bool:
        """Return True if the columns to predict name classes."""
        return self.target_type == "class" or (self.target_type == "auto" and _are_classes(targets))

    def encoder(self) -> TableEncoder:
        """Return the encoder of the training split's columns."""
        self.facts()
        assert self._encoder is not None  # set as the facts are read
        return self._encoder

    def describe_targets(self) -> tuple[TargetColumn, ...]:
        """Return the columns that are predicted, with their units."""
        return tuple(TargetColumn(name, self.units.get(name, "")) for name in self.targets)

    def write_window(self, folder: Path, samples: Sequence[Any], labels: Sequence[Any]) -> None:
        """Write rows as Parquet; see `Backend.write_window`."""
        self.facts()
        write_table_window(folder, samples, labels, self.encoder(), self.targets)

    def _read_window(self, folder: Path, facts: DataFacts) -> SplitRows:
        assert self._encoder is not None  # set as the splits are read
        is_class = facts.num_classes is not None
        table = read_table_window(folder, self._encoder, self.targets if is_class else ())
        encoded = self._encoder.encode_table(table, where=WINDOWS)
        if not is_class:
            rows = self._encode_numbers({WINDOWS: table}, {WINDOWS: encoded})[WINDOWS]
        else:
            (target,) = self.targets
            texts = format_texts(table.get_column(target, where=WINDOWS))
            classes = Classes(facts.num_classes or 0, facts.class_names, facts.class_counts)
            labels = [parse_label(text or "", facts.class_names is None) for text in texts]
            rows = TableRows(table, encoded.x, encode_labels(labels, classes, where=WINDOWS), encoded.bad)
        refuse_bad_samples(rows, self.policy, where=WINDOWS)
        return rows

    def read_raw_rows(self, rows: SplitRows, numbers: NDArray[np.int64]) -> list[dict[str, float | str | None]]:
        """Return rows with the columns that the encoder takes, None where a value is missing."""
        assert isinstance(rows, TableRows)
        names = [column.name for column in self.encoder().columns]
        columns = [rows.table.get_column(name, where="data") for name in names]
        return [
            {name: _read_value(column[row]) for name, column in zip(names, columns, strict=True)}
            for row in numbers.tolist()
        ]

    def teardown(self, stage: str) -> None:
        """Report what was left out, and count the values that training does not have."""
        super().teardown(stage)
        if unknown := sum(sum(columns.values()) for columns in self._unknown.values()):
            self.counted["data/unknown_categories"] = unknown

    def describe_leaks(self) -> list[str]:
        """Return the lines of `MemoryData`, and one for each column that alone predicts the target."""
        train, val = self.get_rows("train"), self.get_rows("val")
        assert isinstance(train, TableRows)
        assert isinstance(val, TableRows)
        # Several targets have no column that gives away all of them.
        if train.labels.ndim == 2 and train.labels.shape[1] > 1:
            return super().describe_leaks()
        known, wanted = (_select_usable(rows) for rows in (train, val))
        names = [column.name for column in self.encoder().columns]
        sides = [{name: table.get_column(name, where="data") for name in names} for table, _ in (known, wanted)]
        columns = find_leaking_columns(sides[0], sides[1], (known[1], wanted[1]))
        return [*super().describe_leaks(), *map(format_leaking_column, columns)]

    def _read_splits(self) -> tuple[Mapping[str, SplitRows], DataFacts]:
        tables = self._read_tables()
        train = tables["train"]
        # A mistyped name would have no effect. What can't be read may be left out.
        ignored = [name for name in self.ignore if name not in train.unreadable]
        names_by_key = {"target": self.targets, "ignore": ignored, "categorical": self.categorical, "units": self.units}
        train.require_columns({f"data.{key}": names for key, names in names_by_key.items()})
        columns = [train.get_column(name, where="data.target") for name in self.targets]
        names = [name for name in (*train.columns, *train.unreadable) if name not in (*self.targets, *self.ignore)]
        for name in names:
            if name in _INDEX_NAMES:
                leave_out = format_override("data.ignore", [*self.ignore, name])
                report_once(
                    f"data      the column {name!r} is an index, as pandas and R write it: {leave_out} leaves it out"
                )
        encoder = TableEncoder.fit(
            train, names, self.categorical, self.units, where="data.train", ignored=list(self.ignore), form=self.form
        )
        self._encoder, self.feature_names = encoder, encoder.feature_names
        encoded = {split: encoder.encode_table(table, where=f"data.{split}") for split, table in tables.items()}
        self._unknown = {split: dict(rows.unknown) for split, rows in encoded.items() if rows.unknown}
        if self.has_classes(columns):
            splits, classes = self._encode_classes(tables, encoded)
        else:
            splits, classes = self._encode_numbers(tables, encoded), None
        for split, rows in splits.items():
            self._refuse_bad_rows(rows, train, where=f"data.{split}")
        width = len(encoder.feature_names)
        mean, std = ((), ()) if classes else _compute_target_scale(splits["train"])
        facts = DataFacts(
            sample=(width,),
            features=width,
            num_classes=classes.count if classes else None,
            targets=None if classes else len(self.targets),
            train_samples=len(splits["train"]),
            val_samples=len(splits["val"]),
            version=compute_split_version(splits),
            class_names=classes.names if classes else None,
            class_counts=classes.samples if classes else (),
            target_mean=mean,
            target_std=std,
        )
        return splits, facts

    def _refuse_bad_rows(self, rows: SplitRows, train: DataTable, where: str) -> None:
        """Raise for bad rows, see `refuse_bad_samples`, with the setting that makes texts numbers or missing values."""
        try:
            refuse_bad_samples(rows, self.policy, where=where)
        except BadSample as bad:
            columns = self._encoder.columns if self._encoder is not None else ()
            names = [column.name for column in columns if isinstance(column, NumberColumn)]
            held = [name for name in (*names, *self.targets) if name in train.texts]
            alone = {name: suggest_number_keys(train.columns[name]) for name in held}
            keys = combine_number_keys(alone, train.columns, self.form.missing).values()
            bad.fix = "\n".join(dict.fromkeys(filter(None, [*keys, bad.fix])))
            raise

    def _encode_classes(
        self, tables: Mapping[str, DataTable], encoded: Mapping[str, EncodedTable]
    ) -> tuple[dict[str, SplitRows], Classes]:
        (target,) = self.targets
        given = tables["train"].get_column(target, where="data.target")
        is_asked = self.target_type == "auto" and not (
            target in tables["train"].texts and are_codes(format_texts(given))
        )
        if is_asked and (key := suggest_number_keys(given)) is not None:
            raise MLScaleError(
                f"the column {target!r} holds numbers and other texts",
                where="data.target",
                fix=f"{key}\ndata.target_type=class, if they are names of classes".lstrip(),
            )
        texts = {
            split: format_texts(table.get_column(target, where=f"data.target: {split}"))
            for split, table in tables.items()
        }
        present = sorted({text for text in texts["train"] if text is not None})
        if not 2 <= len(present) <= _MAX_CLASSES:
            raise MLScaleError(
                f"the column {target!r} has {len(present):,} class{'es' * (len(present) != 1)}",
                where="data.target",
                why=f"a classifier has 2 to {_MAX_CLASSES:,} classes",
                fix="data.target_type=number task=regression, if it is a number to predict"
                if are_numbers(present)
                else "data.target=<a column of names that repeat>",
            )
        numbered = are_numbers(present)
        # A missing label takes any class: its row is bad, and is not trained on.
        labels: dict[str, list[Label]] = {
            split: [parse_label(text or present[0], numbered) for text in column] for split, column in texts.items()
        }
        # Missing labels do not count as samples of the class that they took.
        present_labels = [
            label for label, text in zip(labels["train"], texts["train"], strict=True) if text is not None
        ]
        classes = find_classes(present_labels, where="data.target")
        splits: dict[str, SplitRows] = {}
        for split, table in tables.items():
            missing = {row: f"{target} is missing" for row, text in enumerate(texts[split]) if text is None}
            is_held_out = split == "val" and self.may_stratify
            y = encode_labels(labels[split], classes, where=f"data.{split}", is_held_out=is_held_out)
            splits[split] = TableRows(table, encoded[split].x, y, {**encoded[split].bad, **missing})
        return splits, classes

    def _encode_numbers(
        self, tables: Mapping[str, DataTable], encoded: Mapping[str, EncodedTable]
    ) -> dict[str, SplitRows]:
        splits: dict[str, SplitRows] = {}
        for split, table in tables.items():
            bad, columns = dict(encoded[split].bad), []
            for name in self.targets:
                numbers, wrong = separate_numbers(table.get_column(name, where=f"data.target: {split}"))
                missing = dict.fromkeys(np.flatnonzero(np.isnan(numbers)).tolist(), "missing") | wrong
                if len(missing) == len(numbers):
                    raise MLScaleError(
                        f"the column {name!r} holds no number to predict",
                        where="data.target",
                        why=f"{table.keys[0]} holds {missing[0]!r}",
                        fix="data.target_type=class task=classification, if it names classes",
                    )
                bad |= {row: f"{name} is {what}" for row, what in missing.items()}
                # Rows with a missing target are bad, so that their 0 is not trained on.
                columns.append(np.nan_to_num(numbers))
            splits[split] = TableRows(table, encoded[split].x, np.stack(columns, 1).astype(np.float32), bad)
        return splits


def _select_usable(rows: TableRows) -> tuple[DataTable, Array]:
    """Return the rows that have a target, and their targets, (n,)."""
    usable = np.ones(len(rows), np.bool_)
    usable[list(rows.bad)] = False
    return rows.table.select_rows(usable), rows.labels[usable].ravel()


def _compute_target_scale(train: SplitRows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each number to predict."""
    # Bad rows hold 0 in place of a target.
    rows = np.array([row for row in range(len(train)) if row not in train.bad], np.int64)
    y = train.take_samples(rows)[1].astype(np.float64)
    std = y.std(axis=0)
    # Targets are divided by the deviation.
    return tuple(y.mean(axis=0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _are_classes(columns: Sequence[Column]) -> bool:
    if len(columns) != 1:
        return False
    (values,) = columns
    if not isinstance(values, np.ndarray):
        return not _is_mostly_numeric(values)
    # As `find_classes` needs them: from 0, without gaps.
    present = np.unique(values[~np.isnan(values)])
    return len(present) <= _MAX_CLASSES and np.array_equal(present, np.arange(len(present)))


def _is_mostly_numeric(values: Texts) -> bool:
    if are_codes(values):
        return False
    numbers, bad = separate_numbers(mark_missing(values))
    return len(bad) <= 0.05 * max(1, int((~np.isnan(numbers)).sum()))


def _read_value(value: Any) -> float | str | None:
    """Return a value of a column as JSON has it."""
    if value is None or isinstance(value, str):
        return value
    return None if np.isnan(value) else float(value)
