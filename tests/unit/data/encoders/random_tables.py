"""Random rows as clients send them, and the same rows as columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.table_parsing.columns import Column, DataTable

WORDS = ["Dream", "Biscoe", "Ægir 🐧", "ß", "日本", "", "07", "nan", "True", "a,b\n", "e\u0301", "é", "a\0b", "\ud800"]
NUMBERS = [0, -1, 7, 2**60, 10**400, True, False, 3.25, 1e-300, -0.0, 0.1, float("inf"), float("nan"), None]
NUMBER_TEXTS = ["7", " 07 ", "7.0", "1e5", "true", "nan", "inf", "1_000", "no", "", "٣"]


def fit_random(rng: np.random.Generator, rows: int = 60) -> TableEncoder:
    """An encoder of columns of every kind: with and without missing values, constant, categories of numbers."""
    missing = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(40, 7, rows))
    missing[0] = np.nan
    columns: dict[str, Column] = {
        "length": rng.normal(1e4, 3, rows),
        "mass": missing,
        "constant": np.full(rows, 0.1),
        "island": [WORDS[i] for i in rng.integers(0, 5, rows)],
        "sex": [[None, "male", "", "fe male"][i] for i in rng.integers(0, 4, rows)],
        "zip": rng.integers(0, 9, rows).astype(float),
        "as text": [
            ["1", "2.5", None, "0x"][i] if i < 3 or row == 1 else "4" for row, i in enumerate(rng.integers(0, 3, rows))
        ],
    }
    return TableEncoder.fit(
        DataTable(columns, [str(i) for i in range(rows)]), list(columns), ["zip"], where="data.train"
    )


def draw_row(rng: np.random.Generator, encoder: TableEncoder) -> dict[str, Any]:
    """A row whose values are mostly as in training, else of any kind."""

    def pick(values: list[Any]) -> Any:
        return values[int(rng.integers(len(values)))]

    def draw_value(column: Any) -> Any:
        chance = rng.random()
        if chance < 0.6:
            if column.type == "number":
                return float(rng.normal(column.mean, 2 * column.std))
            return pick([*column.values, *(int(value) for value in column.values if value.isdigit())])
        return pick(pick([WORDS, NUMBERS, NUMBER_TEXTS]) if chance > 0.75 else [None])

    return {"id": "x", **{column.name: draw_value(column) for column in encoder.columns}}


def build_table(rows: list[dict[str, Any]], encoder: TableEncoder) -> DataTable:
    """Rows as columns: an array where every value is a number or missing, else texts.

    Numbers among texts are written so that they read as the same number.
    """

    def build_column(name: str) -> Column:
        values = [row[name] for row in rows]
        if not any(isinstance(value, str) for value in values):
            return np.array([np.nan if value is None else _to_float(value) for value in values])
        return [value if value is None or isinstance(value, str) else repr(_to_float(value)) for value in values]

    return DataTable(
        {column.name: build_column(column.name) for column in encoder.columns}, [str(i) for i in range(len(rows))]
    )


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")
