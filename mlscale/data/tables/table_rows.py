"""Rows of tables, for classification and regression."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlscale.data.array_data import Array, MemoryData, Rows, refuse_bad, version_of
from mlscale.data.class_labels import Classes, are_numbers, as_label, encode_labels, find_classes
from mlscale.data.data_facts import DataFacts
from mlscale.data.order.policy import Policy
from mlscale.data.shards.sample_source import Label
from mlscale.data.tables.columns import Column, Table, rows_of
from mlscale.data.tables.features import Encoded, Features, as_numbers_or_bad, as_texts
from mlscale.data.text.text_rows import by_hash
from mlscale.errors import MLScaleError

_MOST_CLASSES = 1000


class TableRows:
    """A split of encoded rows.

    Args:
        table: the rows as they were read.
        x: float32 (n, features).
        y: class numbers, int64 (n,), or numbers, float32 (n, targets).
        bad: what is wrong with a row that cannot be used, by its number.
    """

    def __init__(self, table: Table, x: NDArray[np.float32], y: Array, bad: Mapping[int, str]) -> None:
        self.bad, self._keys, self.x, self.labels = bad, table.keys, x, y
        total = hashlib.sha256(b"table 1")
        for name, column in table.columns.items():
            total.update(f"{name}\0{len(table)}\0".encode("utf-8", "surrogateescape"))
            total.update("\0".join(rows_of(column)).encode("utf-8", "surrogateescape"))
        total.update(x.astype("<f4").tobytes())  # columns may be left out, or read in another way
        self.version = total.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, sample: int) -> str:
        return self._keys[sample]

    def take(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
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
        others: see `OrderedData`.

    Attributes:
        features: how columns are encoded, once the data is read.
        feature_names: of each feature, once the data is read.
    """

    def __init__(
        self,
        *,
        target: str | Sequence[str],
        target_type: str,
        ignore: Sequence[str],
        categorical: Sequence[str],
        batch_size: int,
        seed: int,
        augment: object,
        policy: Policy,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, augment=augment, policy=policy)
        self.targets = (target,) if isinstance(target, str) else tuple(target)
        if target_type not in ("auto", "class", "number") or (target_type == "class" and len(self.targets) > 1):
            raise MLScaleError(
                f"data.target_type is {target_type!r} with {len(self.targets)} target columns",
                where="data.target_type",
                why="it is one of: auto, class, number; a class is a single column",
                fix="data.target_type=auto",
            )
        self.target_type, self.ignore, self.categorical = target_type, tuple(ignore), tuple(categorical)
        self.features: Features | None = None
        self.feature_names: tuple[str, ...] = ()
        self._unknown: dict[str, dict[str, int]] = {}

    def _tables(self) -> dict[str, Table]:
        """Return the tables of train and val, and of test if there is one."""
        raise NotImplementedError

    def teardown(self, stage: str) -> None:
        """Report what was left out, and count the values that training does not have."""
        super().teardown(stage)
        if unknown := sum(sum(columns.values()) for columns in self._unknown.values()):
            self.counted["data/unknown_categories"] = unknown

    def _read(self) -> tuple[Mapping[str, Rows], DataFacts]:
        tables = self._tables()
        train = tables["train"]
        for given, key in ((self.ignore, "ignore"), (self.categorical, "categorical")):
            for name in given:
                # To raise: a mistyped name would have no effect.
                train.column(name, where=f"data.{key}")
        columns = [train.column(name, where="data.target") for name in self.targets]
        names = [name for name in train.columns if name not in (*self.targets, *self.ignore)]
        features = Features(train, names, self.categorical, where="data.train")
        self.features, self.feature_names = features, features.names
        encoded = {split: features.encode(table, where=f"data.{split}") for split, table in tables.items()}
        self._unknown = {split: dict(rows.unknown) for split, rows in encoded.items() if rows.unknown}
        if self.target_type == "class" or (self.target_type == "auto" and _are_classes(columns)):
            splits, classes = self._classes(tables, encoded)
        else:
            splits, classes = self._numbers(tables, encoded), None
        for split, rows in splits.items():
            refuse_bad(rows, self.policy, where=f"data.{split}")
        width = len(features.names)
        mean, std = ((), ()) if classes else _scale(splits["train"])
        facts = DataFacts(
            sample=(width,),
            features=width,
            num_classes=classes.count if classes else None,
            targets=None if classes else len(self.targets),
            train_samples=len(splits["train"]),
            val_samples=len(splits["val"]),
            version=version_of(splits),
            class_names=classes.names if classes else None,
            class_counts=classes.samples if classes else (),
            target_mean=mean,
            target_std=std,
        )
        return splits, facts

    def _classes(self, tables: Mapping[str, Table], encoded: Mapping[str, Encoded]) -> tuple[dict[str, Rows], Classes]:
        (target,) = self.targets
        texts = {
            split: as_texts(table.column(target, where=f"data.target: {split}")) for split, table in tables.items()
        }
        present = sorted({text for text in texts["train"] if text is not None})
        if not 2 <= len(present) <= _MOST_CLASSES:
            raise MLScaleError(
                f"the column {target!r} has {len(present):,} class{'es' * (len(present) != 1)}",
                where="data.target",
                why=f"a classifier tells 2 to {_MOST_CLASSES:,} apart",
                fix="data.target_type=number task=regression, if it is a number to predict",
            )
        numbered = are_numbers(present)
        # A missing label takes any class: its row is bad, and is not trained on.
        labels: dict[str, list[Label]] = {
            split: [as_label(text or present[0], numbered) for text in column] for split, column in texts.items()
        }
        # Missing labels do not count as samples of the class that they took.
        there = [label for label, text in zip(labels["train"], texts["train"], strict=True) if text is not None]
        classes = find_classes(there, where="data.target")
        splits: dict[str, Rows] = {}
        for split, table in tables.items():
            missing = {row: f"{target} is missing" for row, text in enumerate(texts[split]) if text is None}
            y = encode_labels(labels[split], classes, where=f"data.{split}")
            splits[split] = TableRows(table, encoded[split].x, y, {**encoded[split].bad, **missing})
        return splits, classes

    def _numbers(self, tables: Mapping[str, Table], encoded: Mapping[str, Encoded]) -> dict[str, Rows]:
        splits: dict[str, Rows] = {}
        for split, table in tables.items():
            bad, columns = dict(encoded[split].bad), []
            for name in self.targets:
                numbers, wrong = as_numbers_or_bad(table.column(name, where=f"data.target: {split}"))
                missing = dict.fromkeys(np.flatnonzero(np.isnan(numbers)).tolist(), "missing") | wrong
                if len(missing) == len(numbers):
                    raise MLScaleError(
                        f"the column {name!r} holds no number to predict",
                        where="data.target",
                        why=f"row 1 holds {next(iter(missing.values()))!r}",
                        fix="data.target_type=class task=classification, if it names classes",
                    )
                bad |= {row: f"{name} is {what}" for row, what in missing.items()}
                # Rows with a missing target are bad, so that their 0 is not trained on.
                columns.append(np.nan_to_num(numbers))
            splits[split] = TableRows(table, encoded[split].x, np.stack(columns, 1).astype(np.float32), bad)
        return splits


def held_out_rows(table: Table, targets: Sequence[str], fraction: float, *, where: str) -> tuple[Table, Table]:
    """Return training and held-out rows of one table.

    A hash of a row's values, without its targets, decides on which side it falls: other rows have no effect, and
    equal rows fall on the same side.

    Raises:
        MLScaleError: the fraction is not between 0 and 1, or one side is empty.
    """
    # Without targets: a corrected label must not move its row to the other side.
    columns = [rows_of(column) for name, column in table.columns.items() if name not in targets]
    held = np.array([by_hash("\0".join(values), fraction) for values in zip(*columns, strict=True)], np.bool_)
    if not 0 < fraction < 1 or not len(held) or held.all() or not held.any():
        raise MLScaleError(
            f"{fraction:g} of {len(table)} rows leave one side empty",
            where=where,
            why="equal rows fall on the same side, by a hash of their values",
            fix="data.val=val.csv, or data.val_fraction=0.2",
        )
    return _part(table, ~held), _part(table, held)


def _part(table: Table, mask: NDArray[np.bool_]) -> Table:
    rows = np.flatnonzero(mask).tolist()
    columns: dict[str, Column] = {
        name: column[mask] if isinstance(column, np.ndarray) else [column[row] for row in rows]
        for name, column in table.columns.items()
    }
    return Table(columns, [table.keys[row] for row in rows])


def _scale(train: Rows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each number to predict."""
    # Bad rows hold 0 in place of a target.
    rows = np.array([row for row in range(len(train)) if row not in train.bad], np.int64)
    y = train.take(rows)[1].astype(np.float64)
    std = y.std(axis=0)
    # Targets are divided by the deviation.
    return tuple(y.mean(axis=0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _are_classes(columns: Sequence[Column]) -> bool:
    if len(columns) != 1:
        return False
    (values,) = columns
    if not isinstance(values, np.ndarray):
        return not _numbers_with_mistakes(values)
    # As `find_classes` needs them: from 0, without gaps.
    there = np.unique(values[~np.isnan(values)])
    return len(there) <= _MOST_CLASSES and np.array_equal(there, np.arange(len(there)))


def _numbers_with_mistakes(values: Column) -> bool:
    numbers, bad = as_numbers_or_bad(values)
    return len(bad) <= 0.05 * max(1, int((~np.isnan(numbers)).sum()))
