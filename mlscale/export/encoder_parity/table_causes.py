"""Name the column of a table that a servable encodes otherwise than training, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn, TableColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.export.encoder_parity.difference import Cause, Finding, are_close, fit_line, format_values

# About eight rounding steps of float32, each 1.2e-7 of a value.
SHARE = 1e-6
Rows = Sequence[Mapping[str, Any]]
Reason = tuple[Cause, str]


def find_table_difference(
    encoder: TableEncoder, trained: NDArray[Any], exported: NDArray[Any], rows: Rows, exported_names: Sequence[str]
) -> Finding | None:
    """Return the first column that differs; None where all are equal.

    Args:
        encoder: training's.
        trained, exported: features, float32 (n, …) each.
        rows: the raw samples.
        exported_names: the names of the exported features.
    """
    if trained.shape != exported.shape:
        return _compare_names(encoder, trained, exported, exported_names)
    differs = ~are_close(trained, exported, SHARE)
    at = 0
    for column in encoder.columns:
        features = slice(at, at + len(column.names))
        at = features.stop
        wrong = np.flatnonzero(differs[:, features].any(1))
        if len(wrong):
            given, got = (side[:, features].astype(np.float64) for side in (trained, exported))
            if isinstance(column, NumberColumn):
                cause, detail = _explain_number(column, given, got, rows, encoder, trained)
            else:
                cause, detail = _explain_category(column, given, got, rows, encoder)
            row = int(wrong[0])
            name = f"the column {column.name!r}"
            return Finding(name, row, (format_values(given[row]), format_values(got[row])), cause, detail)
    return None


def _compare_names(
    encoder: TableEncoder, trained: NDArray[Any], exported: NDArray[Any], exported_names: Sequence[str]
) -> Finding:
    """Return the first feature that one of the two lacks."""
    names = encoder.feature_names
    missing = [name for name in names if name not in exported_names]
    more = [name for name in exported_names if name not in names]
    name = (missing or more or ["features"])[0]
    column = next((column.name for column in encoder.columns if name in column.names), name)
    cause = Cause.MISSING_VALUE if name.endswith(" is missing") else Cause.OTHER_CATEGORIES
    detail = f"the servable {'lacks' if missing else 'adds'} the feature {name!r}"
    shown = f"{trained.shape[1]} features", f"{exported.shape[1]} features"
    return Finding(f"the column {column!r}", 0, shown, cause, detail)


def _explain_number(
    column: NumberColumn,
    trained: NDArray[np.float64],
    exported: NDArray[np.float64],
    rows: Rows,
    encoder: TableEncoder,
    features: NDArray[Any],
) -> Reason:
    missing = np.array([np.isnan(_read_number(column, row)) for row in rows])
    wrong = ~are_close(trained, exported, SHARE)
    # A flag alone, or rows without a value alone.
    if not wrong[:, 0].any() or not wrong[~missing].any():
        filled = exported[missing & wrong[:, 0], 0]
        fill = f"filled with {filled[0] * column.std + column.mean:.6g}, not {column.median:.6g}" if len(filled) else ""
        return Cause.MISSING_VALUE, fill or "the feature that flags one"
    present = exported[~missing, 0]
    if other := _find_other_number(column, present, rows, missing, encoder, features):
        return Cause.OTHER_COLUMN, f"with {other!r}"
    line = fit_line(trained[~missing, 0], present)
    if line is None:
        return Cause.UNKNOWN, ""
    slope, offset = line
    # Of values that are multiplied: (s·x - mean) / std.
    expected = (slope - 1) * column.mean / column.std
    if abs(slope - 1) > 1e-4 and abs(offset - expected) <= 1e-3 * max(1.0, abs(expected)) and abs(expected) > 1e-3:
        return Cause.UNIT, f"{slope:.6g} times the value"
    if abs(slope) < 1e-9:
        return Cause.UNKNOWN, "a constant"
    std = column.std / slope
    return Cause.MEAN_OR_STD, (
        f"mean {column.mean - offset * std:.6g} and deviation {std:.6g}, not {column.mean:.6g} and {column.std:.6g}"
    )


def _find_other_number(
    column: NumberColumn,
    present: NDArray[np.float64],
    rows: Rows,
    missing: NDArray[np.bool_],
    encoder: TableEncoder,
    features: NDArray[Any],
) -> str:
    """Return the column whose values or features are there; '' for none."""
    at = 0
    for other in encoder.columns:
        position, at = at, at + len(other.names)
        if other is column or not isinstance(other, NumberColumn):
            continue
        values = np.array([_read_number(other, row) for row in rows])[~missing]
        known = ~np.isnan(values)
        if not known.any():
            continue
        # Its values by the statistics of this column, or its own features.
        scaled = (values[known] - column.mean) / column.std
        for predicted in (scaled, features[~missing, position].astype(np.float64)[known]):
            if are_close(predicted, present[known], 1e-5).all():
                return other.name
    return ""


def _explain_category(
    column: CategoryColumn,
    trained: NDArray[np.float64],
    exported: NDArray[np.float64],
    rows: Rows,
    encoder: TableEncoder,
) -> Reason:
    wrong = (trained != exported).any(1)
    missing = np.array([not _read_text(column, row) for row in rows])
    if not wrong[~missing].any():
        return Cause.MISSING_VALUE, ""
    for other in encoder.columns:
        if other is not column and isinstance(other, CategoryColumn):
            predicted = column.encode_values([_read_text(other, row) for row in rows])
            if np.array_equal(predicted, exported) and other.values != column.values:
                return Cause.OTHER_COLUMN, f"with {other.name!r}"
    moves = {(_find_hot(before), _find_hot(after)) for before, after in zip(trained, exported, strict=True)}
    first = int(np.flatnonzero(wrong)[0])
    value = _read_text(column, rows[first])
    if any(-1 in move and move != (-1, -1) for move in moves):
        return Cause.OTHER_CATEGORIES, f"{value!r}"
    sources, targets = zip(*moves, strict=True)
    if len(set(sources)) == len(moves) == len(set(targets)):
        return Cause.CATEGORY_ORDER, f"{value!r} is number {_find_hot(exported[first]) + 1} of them"
    # Of equal sets of categories, those of the other column.
    return Cause.OTHER_COLUMN, ""


def _find_hot(features: NDArray[np.float64]) -> int:
    """Return the position of the category; -1 for none."""
    return int(features.argmax()) if features.any() else -1


def _read_number(column: NumberColumn, row: Mapping[str, Any]) -> float:
    return column.read_value(row[column.name])


def _read_text(column: TableColumn, row: Mapping[str, Any]) -> str:
    return str(column.read_value(row[column.name]))
