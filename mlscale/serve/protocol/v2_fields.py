"""Reads the fields of V2 requests; statuses and messages are those of Triton's JSON reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlscale.serve.http.request_error import Refused

NO_MEMBER, NO_ARRAY = (
    "attempt to access non-existing object member '{}'",
    "attempt to access JSON non-array as array",
)
NO_COUNT = "attempt to access JSON non-unsigned-integer as unsigned-integer"
_MOST_TENSORS = 64


def get_entries(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects.

    Raises:
        Refused: it is absent, too long, or something else.
    """
    if name not in document:
        raise build_parse_refusal(name, NO_MEMBER.format(name))
    entries = document[name]
    if not isinstance(entries, list):
        raise build_parse_refusal(name, NO_ARRAY)
    if len(entries) > _MOST_TENSORS:
        raise Refused(f"there are {len(entries)} '{name}' in the request JSON, over {_MOST_TENSORS}")
    if not all(isinstance(entry, dict) for entry in entries):
        raise Refused(f"'{name}' in the request JSON is not a list of objects")
    return entries


def get_text(entry: Mapping[str, Any], name: str) -> str:
    """Return a text.

    Raises:
        Refused: it is absent, or something else.
    """
    if name not in entry:
        raise build_parse_refusal(name, NO_MEMBER.format(name))
    if not isinstance(entry[name], str):
        raise build_parse_refusal(name, "attempt to access JSON non-string as string")
    return str(entry[name])


def get_optional_text(entry: Mapping[str, Any], name: str) -> str | None:
    """Return a text; None where it is absent.

    Raises:
        Refused: it is something else.
    """
    return None if entry.get(name) is None else get_text(entry, name)


def get_parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a request or of a tensor; none where they are absent.

    Raises:
        Refused: they are not an object.
    """
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refused("'parameters' in the request JSON is not an object")
    return parameters


def format_value(value: object) -> str:
    """Return a value of a request, short enough for a message."""
    if isinstance(value, list):
        return "[" + ",".join(format_value(item) for item in value[:8] if not isinstance(item, list | dict)) + "]"
    return str(value)[:200] if isinstance(value, str | int | float) and abs(_convert_to_number(value)) < 2**63 else "…"


def build_parse_refusal(name: str, why: str) -> Refused:
    """Return the refusal of a field that can't be parsed, with Triton's status for it, 500."""
    return Refused(f"Unable to parse '{name}': {why}", 500)


def _convert_to_number(value: str | float) -> float:
    return 0 if isinstance(value, str) else value
