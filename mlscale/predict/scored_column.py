"""Choose the column of a table that a model of images or texts scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.runs.recover import CONFIG, read_yaml_values

_USUAL_NAMES = ("image", "img", "text", "bytes", "path", "file", "filename")


def choose_scored_column(of_bytes: Sequence[str], texts: Sequence[str], *, where: str, fix: str) -> str | None:
    """Return the only column of bytes, else the text column with a usual name, else the only text column; None if there
    is none.

    Args:
        of_bytes: names of the columns of bytes.
        texts: names of those of text.
        where: the table, for errors.
        fix: what to type, with {} for a column's name.

    Raises:
        MLScaleError: several columns of bytes, or of text with a usual name.
    """
    for names in (of_bytes, [name for name in texts if name.lower() in _USUAL_NAMES], texts):
        if len(names) == 1:
            return names[0]
        # Texts of any name are often remarks: with several of them the table is one of numbers to `predict`.
        if len(names) > 1 and names is not texts:
            raise MLScaleError(
                "it is not clear which column is scored", where=where, why=", ".join(names), fix=fix.format(names[0])
            )
    return None


def read_trained_column(home: Path | None) -> str | None:
    """Return the column of texts, or the members of shards joined by ';', that a run was trained on.

    None where its data names none, or the run does not exist.

    Args:
        home: the folder of the run.
    """
    if home is None:
        return None
    data = read_yaml_values(home / CONFIG).get("data")
    column = data.get("text") or data.get("image_key") if isinstance(data, Mapping) else None
    return column if isinstance(column, str) else None
