"""Recognises columns of a log by their values: results by the names of the classes, times by their form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlscale.events.foreign.field_path import list_paths
from mlscale.events.foreign.number_text import parse_number_text
from mlscale.events.foreign.time_parser import find_time_format
from mlscale.task_types.event_forms import parse_json_text

_FIRST_TIME, _LAST_TIME = 1e9, 4e18  # seconds of 2001, nanoseconds of 2096: smaller numbers may be anything
_ROWS, _MOST_VALUES = 5_000, 50  # that are looked at: a status of failures is rare


@dataclass(frozen=True)
class LogColumns:
    """Columns of a log's first rows.

    Attributes:
        values: of each path the distinct values, without empty ones, in their order.
        counts: the number of rows in which a path has a value.
    """

    values: Mapping[str, Collection[object]]
    counts: Mapping[str, int]

    @classmethod
    def collect(cls, records: Sequence[Mapping[str, Any]]) -> LogColumns:
        """Return the columns of records; a column of many values is known by its first ones."""
        values: dict[str, dict[object, None]] = {}
        counts = Counter[str]()
        for record in records[:_ROWS]:
            for path, value in list_paths(record):
                seen = values.setdefault(path, {})
                if value in (None, "", [], {}):
                    continue
                counts[path] += 1
                if len(seen) < _MOST_VALUES:
                    seen[value] = None
        return cls(values, counts)


def guess_by_values(columns: LogColumns, paths: Collection[str], labels: Sequence[str]) -> dict[str, str]:
    """Return the paths of a time, a prediction and a label, as far as values show them.

    Args:
        columns: of the log.
        paths: that may be such a column.
        labels: names of the model's classes.
    """
    given = {path: values for path, values in columns.values.items() if path in paths and values}
    paths_by_key: dict[str, str] = {}
    times = [path for path, values in given.items() if _are_times(values)]
    if times:
        paths_by_key["time"] = times[0]
    # A label may come later, a prediction is in each row: of two columns of classes the fuller one is that.
    results = [
        path
        for path, values in given.items()
        if {str(value) for value in values} <= {*labels} and not _is_of_fixed_list(path, columns)
    ]
    results.sort(key=lambda path: -columns.counts[path])
    return paths_by_key | dict(zip(("prediction", "label"), results, strict=False))


def is_share_text(value: object, labels: Sequence[str]) -> bool:
    """Return True for a text with a probability for each class: `0.2,0.8`."""
    items = parse_json_text(value)
    items = items.split(",") if isinstance(items, str) else items
    if not isinstance(items, list) or len(items) != len(labels) or len(items) < 2:
        return False
    try:
        return all(0 <= parse_number_text(item) <= 1 for item in items)
    except ValueError:
        return False


def _is_of_fixed_list(path: str, columns: LogColumns) -> bool:
    """Return True for an item of a list that is the same in each row, such as the names of the classes."""
    whole, _, index = path.rpartition(".")
    if not index.isdigit():
        return False
    # The names are next to their probabilities: the first of them is not a prediction, whatever it is in all rows.
    items = [values for other, values in columns.values.items() if other.rpartition(".")[0] == whole]
    return len(items) > 1 and all(len(values) == 1 for values in items)


def _are_times(values: Collection[object]) -> bool:
    try:
        return all(_FIRST_TIME <= float(str(value)) <= _LAST_TIME for value in values)
    except ValueError:
        return find_time_format(values) is not None
