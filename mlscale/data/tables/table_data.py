"""Tables in a user's files, and two that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np

from mlscale.data.inspection.leaks import describe_split_leaks
from mlscale.data.order.policy import Policy, PolicyArguments, TolerantPolicyArguments
from mlscale.data.table_parsing.columns import Column, DataTable, format_texts, format_values
from mlscale.data.table_parsing.hold_out import HoldOut
from mlscale.data.table_parsing.table_files import read_table
from mlscale.data.table_parsing.table_form import TableForm
from mlscale.data.tables.table_rows import TabularData
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.utils import Bunch


class TableFiles(TabularData):
    """Your own table: CSV, Parquet or JSON Lines.

    Args:
        train: paths or globs of `.csv`, `.tsv`, `.parquet` or `.jsonl` files.
        target: see `TabularData`.
        val: the same as `train`, for validation; None holds out rows of it.
        test: the same; None for none.
        val_fraction: part of the rows that is held out where `val` is None.
        group_on: a column; rows with the same value in it stay on one side. It is not a feature.
        time_on: a column of times; the latest rows are held out. It is not a feature.
        stratify: hold out the same part of each class.
        target_type: see `TabularData`.
        ignore: see `TabularData`.
        categorical: see `TabularData`.
        units: see `TabularData`.
        missing: texts that stand for a missing value, besides the usual ones.
        thousands: the mark that divides thousands; None for none.
        encoding: of CSV files.
        separator: what divides the columns of CSV files; None for what is in the heading most often.
        decimal: the mark of decimals, a point or a comma; next to a comma, points divide thousands.
        policy: see `Policy`; `augment` gets one row, float32 (features,). A bad sample is a row without a target, or
            with text in a column of numbers.
    """

    def __init__(
        self,
        train: str | Sequence[str],
        target: str | Sequence[str],
        val: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        val_fraction: float = 0.2,
        group_on: str | None = None,
        time_on: str | None = None,
        stratify: bool = False,
        target_type: str = "auto",
        ignore: Sequence[str] = (),
        categorical: Sequence[str] = (),
        units: Mapping[str, str] | str | None = None,
        missing: Sequence[str] = (),
        thousands: str | None = None,
        encoding: str = "utf-8",
        separator: str | None = None,
        decimal: str = ".",
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        self.hold_out = HoldOut(val_fraction, group_on, time_on, stratify)
        self.hold_out.check_settings(has_val=val is not None)
        super().__init__(
            target=target,
            target_type=target_type,
            # What decides on the side of a row would be learnt by heart, or is new in production.
            ignore=(*ignore, *(name for name in self.hold_out.columns if name not in ignore)),
            categorical=categorical,
            units=units,
            policy=Policy(**policy),
        )
        if separator is not None and len(separator) != 1:
            raise MLScaleError(
                f"data.separator is {separator!r}",
                where="data.separator",
                why="it is one character",
                fix="data.separator=null, for the one that the heading has most often",
            )
        self._train, self._val, self._test = train, val, test
        self.form = TableForm(tuple(missing), thousands, encoding, separator, decimal)

    def _read_tables(self) -> dict[str, DataTable]:
        times = [self.hold_out.time_on] if self.hold_out.time_on else []
        train = read_table(self._train, where="data.train", times=times, form=self.form)
        train.require_columns({"data.group_on": self.hold_out.columns[:1]} if self.hold_out.group_on else {})
        given = {"val": self._val, "test": self._test}
        others = {
            # A column of texts in training stays one in other splits, even if all its values there read as numbers.
            split: read_table(paths, where=f"data.{split}", texts=train.texts, times=times, form=self.form)
            for split, paths in given.items()
            if paths is not None
        }
        if "val" not in others:
            part, held = self._hold_out_rows(train)
            self.may_stratify = self.hold_out.is_by_content
            return {"train": part, "val": held, **others}
        self.split_leaks = describe_split_leaks(train, others["val"], self.hold_out.group_on, self.hold_out.time_on)
        return {"train": train, **others}

    def _hold_out_rows(self, table: DataTable) -> tuple[DataTable, DataTable]:
        """Return training and held-out rows of one table; see `HoldOut`."""
        # Without targets: a corrected label must not move its row to the other side.
        columns = [format_values(column) for name, column in table.columns.items() if name not in self.targets]
        contents = ["\0".join(values) for values in zip(*columns, strict=True)]
        labels = None
        if self.hold_out.stratify:
            targets = [table.get_column(name, where="data.target") for name in self.targets]
            labels = format_texts(targets[0]) if self.has_classes(targets) else None
        held = self.hold_out.choose_rows(table, contents, labels)
        return table.select_rows(~held), table.select_rows(held)


class BundledTable(TabularData):
    """A table of scikit-learn's, with a split that is always the same: a fifth to validate.

    Args:
        policy: see `Policy`; `augment` gets one row, float32 (features,).
    """

    licence: ClassVar[str]
    """Of the data: an SPDX identifier, or what is known."""
    kind: ClassVar[str]
    """'class' or 'number'."""

    def __init__(
        self,
        **policy: Unpack[PolicyArguments],
    ) -> None:
        policy.setdefault("batch_size", 32)
        super().__init__(target="target", target_type=self.kind, ignore=(), categorical=(), policy=Policy(**policy))

    def _load_bundle(self) -> tuple[Any, Column]:
        """Return scikit-learn's data set, and the target of each row."""
        raise NotImplementedError

    def _read_tables(self) -> dict[str, DataTable]:
        from sklearn.model_selection import train_test_split

        given, target = self._load_bundle()
        rows = np.arange(len(given.data))
        classes = given.target if self.kind == "class" else None
        # A fixed seed and not the run's: every run validates on the same rows.
        train, val = train_test_split(rows, test_size=0.2, stratify=classes, random_state=0)
        return {"train": _build_table(given, target, train), "val": _build_table(given, target, val)}


class BreastCancer(BundledTable):
    """Breast Cancer Wisconsin (Diagnostic): 30 measures of 569 tumours, malignant or benign (UCI; CC BY 4.0)."""

    licence = "CC-BY-4.0"
    kind = "class"

    def _load_bundle(self) -> tuple[Any, Column]:
        from sklearn.datasets import load_breast_cancer

        given = load_breast_cancer()
        return given, [str(given.target_names[label]) for label in given.target]


class Diabetes(BundledTable):
    """Diabetes: 10 measures of 442 patients, and how far the disease had gone a year later (Efron et al. 2004).

    The authors state no licence; scikit-learn distributes the data.
    """

    licence = "unstated; distributed with scikit-learn"
    kind = "number"

    def _load_bundle(self) -> tuple[Any, Column]:
        from sklearn.datasets import load_diabetes

        # In their own units: scikit-learn would scale by all rows, those of validation among them.
        given = load_diabetes(scaled=False)
        return given, given.target.astype(np.float64)


def _build_table(given: Bunch, target: Column, rows: NDArray[np.int64]) -> DataTable:
    columns: dict[str, Column] = {str(name): given.data[rows, i] for i, name in enumerate(given.feature_names)}
    columns["target"] = target[rows] if isinstance(target, np.ndarray) else [target[row] for row in rows.tolist()]
    # Keys are the row numbers of scikit-learn's table.
    return DataTable(columns, [str(row) for row in rows.tolist()])
