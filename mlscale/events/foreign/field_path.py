"""Finds a value in a record by a dotted path: `data.inputs.0.age`, through objects, lists, and texts that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


class AbsentFieldError(KeyError):
    """A record has no value at a path."""


def find_value(record: object, path: str) -> Any:
    """Return the value at a path.

    A name that has dots itself is found, too: the longest name that is there counts. A text that holds JSON, or values
    separated by commas, is read on the way.

    Raises:
        AbsentFieldError: there is none.
    """
    if isinstance(record, Mapping):
        if path in record:
            return record[path]
        # From the longest name to the shortest.
        end = len(path)
        while (end := path.rfind(".", 0, end)) > 0:
            if path[:end] in record:
                return find_value(record[path[:end]], path[end + 1 :])
        raise AbsentFieldError(path)
    first, _, rest = path.partition(".")
    if isinstance(record, list | tuple):
        # Negative numbers count from the end, as in Python.
        if not first.lstrip("-").isdigit() or not -len(record) <= int(first) < len(record):
            raise AbsentFieldError(path)
        value = record[int(first)]
        return find_value(value, rest) if rest else value
    if isinstance(record, str):
        return find_value(_decode_text(record), path)
    raise AbsentFieldError(path)


@lru_cache(256)  # a record has many values in one text
def _decode_text(text: str) -> Any:
    """Return what a text holds: JSON, else values separated by commas."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return [text]
    return [item.strip() for item in text.split(",")]
