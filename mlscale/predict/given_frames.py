"""Data frames of pandas, polars and pyarrow as samples; none of these is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.predict.scored_column import choose_scored_column

_MOST_NAMES = 20
_CONVERTERS = ("to_pylist", "to_dicts", "to_dict")


def is_frame(x: object) -> bool:
    """Return whether `x` is a data frame, and not one of its columns."""
    return hasattr(x, "columns") and any(hasattr(x, method) for method in _CONVERTERS)


def list_column_values(x: object) -> list[Any] | None:
    """Return the values of a column of a data frame, or of an array, as Python has them; None of anything else."""
    # Any gives Python values: numpy would make arrays of them.
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(x, method) and not hasattr(x, "columns"):
            listed = getattr(x, method)()
            return listed if isinstance(listed, list) else [listed]
    return None


def list_rows(x: object) -> Iterable[Any]:
    """Return the rows of a data frame; a list as it is; of anything else the only row, `x` itself."""
    for method in ("to_pylist", "to_dicts"):
        if hasattr(x, method):
            rows: list[Any] = getattr(x, method)()
            return rows
    if hasattr(x, "to_dict") and hasattr(x, "notna"):
        frame: Any = x
        # As objects, since only those can be None: a missing value of pandas is one of several of its own.
        plain = frame.astype(object).where(frame.notna(), None)
        return plain.to_dict("records") if hasattr(x, "columns") else [plain.to_dict()]
    return x if isinstance(x, list | tuple | Iterator) else [x]


def list_scored_values(frame: object, trained_on: str | None) -> list[Any]:
    """Return the values of the column that a model of images or texts scores, None where one is missing.

    Args:
        frame: a data frame.
        trained_on: the column of training, which is scored where the frame has it.

    Raises:
        MLScaleError: the column is not clear, or not found.
    """
    rows = list(list_rows(frame))
    if not rows:
        return []
    # A frame without a header has numbers for names.
    names = {str(name): name for name in rows[0]}
    if trained_on in names:
        return [row[names[trained_on]] for row in rows]
    # By the values, since each library has types of its own: of pandas a column of texts is one of objects.
    kinds = {text: {type(row[name]) for row in rows if row[name] is not None} for text, name in names.items()}
    of_bytes = [text for text, types in kinds.items() if types == {bytes}]
    texts = [text for text, types in kinds.items() if str in types and types <= {str, bytes}]
    chosen = choose_scored_column(of_bytes, texts, where="x", fix="predict(x[{!r}])")
    if chosen is None:
        columns = texts or list(names)
        known = ", ".join(map(repr, columns[:_MOST_NAMES])) + (", …" if len(columns) > _MOST_NAMES else "")
        raise MLScaleError(
            "it is not clear which column is scored" if texts else "the data frame has no column of texts or files",
            where="x",
            why=f"its columns{' of texts' if texts else ''} are: {known}",
            fix=f"predict(x[{names[columns[0]]!r}])" if texts else "give a data frame with such a column",
        )
    return [row[names[chosen]] for row in rows]
