"""Recognises columns of a log by their values: results by the names of the classes, times by their form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mlscale.events.foreign.field_path import list_paths
from mlscale.events.foreign.number_text import parse_number_text
from mlscale.events.foreign.time_parser import TimeParser
from mlscale.task_types.event_forms import parse_json_text

_FIRST_TIME, _LAST_TIME = 1e9, 4e18  # seconds of 2001, nanoseconds of 2096: smaller numbers may be anything


def guess_by_values(
    records: Sequence[Mapping[str, Any]], paths: Collection[str], labels: Sequence[str]
) -> dict[str, str]:
    """Return the paths of a time, a prediction and a label, as far as values show them.

    Args:
        records: of the log.
        paths: that may be such a column.
        labels: names of the model's classes.
    """
    columns: dict[str, list[object]] = {}
    for record in records:
        for path, value in list_paths(record):
            if path in paths and value not in (None, ""):
                columns.setdefault(path, []).append(value)
    paths_by_key: dict[str, str] = {}
    times = [path for path, values in columns.items() if all(map(_is_time, values))]
    if times:
        paths_by_key["time"] = times[0]
    # A label may come later, a prediction is in each row: of two columns of classes the fuller one is that.
    results = [path for path, values in columns.items() if {str(value) for value in values} <= {*labels}]
    results.sort(key=lambda path: -len(columns[path]))
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


def _is_time(value: object) -> bool:
    try:
        return _FIRST_TIME <= float(str(value)) <= _LAST_TIME
    except ValueError:
        pass
    try:
        TimeParser().parse_time(value)
    except ValueError:
        return False
    return True
