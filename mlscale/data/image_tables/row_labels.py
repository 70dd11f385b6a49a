"""The labels of rows: a class each, or several, from columns of names, numbers, lists or 0 and 1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.data.class_labels import are_numbers, parse_label
from mlscale.data.image_tables.image_cells import Problem
from mlscale.data.shards.sample_source import Label
from mlscale.data.table_parsing.columns import MISSING_TEXTS, Column, format_texts
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    import pyarrow as pa

WHERE = "data.target"
_UNLABELLED = -1
"""Hugging Face's number for a sample without a class."""


@dataclass
class RowLabels:
    """The labels of all rows of a split, as texts: names, or numbers that are written out.

    Attributes:
        texts: of each row its labels; one for each where a sample has one class.
        problems: of rows without a label that can be used, by row.
    """

    texts: list[list[str]] = field(default_factory=list)
    problems: dict[int, Problem] = field(default_factory=dict)

    def add_row(self, row: int, given: list[Label] | None, class_names: Sequence[str], missing: Problem) -> None:
        """Add the labels of the next row, by their names.

        Args:
            row: its number.
            given: its labels; None where they are missing.
            class_names: the names of classes by number; empty where numbers have no names.
            missing: the problem of a row without labels.
        """
        # A label that is written twice counts once.
        named = [_resolve_label(label, class_names) for label in dict.fromkeys(given or ())]
        # One label that can't be used makes the row one: the others alone would be wrong.
        problem = next((label for label in named if isinstance(label, Problem)), missing if given is None else None)
        if problem is not None:
            self.problems[row] = problem
        self.texts.append([label for label in named if isinstance(label, str)] if problem is None else [])


def read_class_column(values: Column, name: str, class_names: Sequence[str]) -> RowLabels:
    """Return the class of each row.

    Args:
        values: the column.
        name: of the column, for errors.
        class_names: the names of classes by number; empty where the column has no such names.

    Raises:
        MLScaleError: the column holds numbers with fractions.
    """
    if isinstance(values, np.ndarray):
        # A number to predict would become a class for each of its values.
        known = values[~np.isnan(values)]
        if len(known) and not (known == np.floor(known)).all():
            raise MLScaleError(
                f"the column {name!r} holds numbers with fractions, and not classes",
                where=WHERE,
                why=f"such as {next(value for value in known.tolist() if not value.is_integer())!r}",
                fix="data.target=<a column of names or whole numbers>; numbers are predicted from tables: data=table",
            )
    labels, is_number = RowLabels(), isinstance(values, np.ndarray)
    for row, text in enumerate(format_texts(values)):
        given = None if text is None else [int(text) if is_number else text]
        labels.add_row(row, given, class_names, Problem("has no label", f"{name} is missing"))
    return labels


def read_list_column(
    parts: Sequence[pa.ChunkedArray], name: str, delim: str | None, class_names: Sequence[str], places: Sequence[str]
) -> RowLabels:
    """Return the labels of each row of a column of lists, or of texts that are lists.

    Args:
        parts: the column of each file.
        name: of the column, for errors.
        delim: what divides labels in a text; None where lists are lists, or JSON.
        class_names: see `read_class_column`.
        places: the name of each row, for errors.

    Raises:
        MLScaleError: the column holds neither, or its texts have no delimiter.
    """
    labels = RowLabels()
    for row, cell in enumerate(value for part in parts for value in part.to_pylist()):
        try:
            given = _parse_cell(cell, delim)
        except ValueError as error:
            raise MLScaleError(
                f"the column {name!r} holds no lists of labels",
                where=f"{WHERE}: {places[row]}",
                why=str(error),
                fix="data.label_delim=';', which divides the labels of a text; or data.labels=one for a single class",
            ) from error
        labels.add_row(row, given, class_names, Problem("has no labels", f"{name} is missing"))
    return labels


def read_flag_columns(columns: Mapping[str, Column]) -> RowLabels:
    """Return the labels of each row, of columns that have 1 where a row has the label of their name.

    Raises:
        MLScaleError: a column holds something else than 0 and 1.
    """
    for name, values in columns.items():
        if not isinstance(values, np.ndarray) or not np.isin(values[~np.isnan(values)], (0, 1)).all():
            raise MLScaleError(
                f"the column {name!r} holds something else than 0 and 1",
                where=WHERE,
                why="several columns are a label each, 1 where a sample has it",
                fix="data.target=<one column>, of lists or of names",
            )
    # By row: columns are read one after the other.
    stacked = np.stack([np.asarray(values, np.float64) for values in columns.values()], 1)
    names, labels = list(columns), RowLabels()
    for row, flags in enumerate(stacked):
        labels.texts.append([name for name, flag in zip(names, flags.tolist(), strict=True) if flag == 1])
        if np.isnan(flags).any():
            labels.problems[row] = Problem("has no labels", f"{names[int(np.argmax(np.isnan(flags)))]} is missing")
    return labels


def list_raw_labels(labels: RowLabels, rows: Sequence[int], numbered: bool) -> list[list[Label]]:
    """Return the labels of rows: numbers where those of training are (see `are_numbered`), else names."""
    return [[parse_label(text, numbered) for text in labels.texts[row]] for row in rows]


def are_numbered(labels: RowLabels) -> bool:
    """Return True if all labels are class numbers from 0."""
    return are_numbers(text for texts in labels.texts for text in texts)


def _resolve_label(label: Label, class_names: Sequence[str]) -> str | Problem:
    """Return the name of a label; of a number without names the number as text."""
    # A text is a name already, also one that reads as a number.
    if isinstance(label, str) or not class_names:
        return str(label)
    if 0 <= label < len(class_names):
        return class_names[label]
    if label == _UNLABELLED:
        return Problem("has no label", f"its number is {_UNLABELLED}, which stands for none")
    return Problem("has no label", f"its number is {label}, and classes are 0 to {len(class_names) - 1}")


def _parse_cell(cell: object, delim: str | None) -> list[Label] | None:
    """Return the labels of a cell; None where it is missing.

    Raises:
        ValueError: it is not a list.
    """
    if isinstance(cell, list):
        return [_check_label(label) for label in cell]
    # In a file of texts an empty field is an empty list.
    if isinstance(cell, str) or (cell is None and delim is not None):
        text = (cell or "").strip()
        if delim is not None:
            return [part.strip() for part in text.split(delim) if part.strip()]
        if text.startswith("["):
            return [_check_label(label) for label in _parse_json(text)]
        raise ValueError(f"it holds the text {text[:60]!r}, and what divides its labels is not known")
    if cell is None:
        return None
    raise ValueError(f"it holds {cell!r}")


def _parse_json(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError:
        # As Python prints a list.
        value = json.loads(text.replace("'", '"'))
    if not isinstance(value, list):
        raise ValueError(f"{text[:60]!r} is not a list")
    return value


def _check_label(label: object) -> Label:
    # bool is a subclass of int: [true, false] would be read as the classes 1 and 0.
    if isinstance(label, bool) or not isinstance(label, int | str) or label in MISSING_TEXTS:
        raise ValueError(f"{label!r} is neither a number nor a name")
    return label
