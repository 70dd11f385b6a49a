"""Write protobuf's text format, as far as Triton's `config.pbtxt` needs it; without the package protobuf.

A message is a mapping, a list a repeated field. Integers, truth values and texts are written as such, the names of an
enumeration as `EnumName`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class EnumName(str):
    """A name of an enumeration, which is written without quotes."""


def format_message(message: Mapping[str, Any], indent: int = 0) -> str:
    """Return a message, a field in a line."""
    return "".join(_format_field(name, value, "  " * indent, indent) for name, value in message.items())


def _format_field(name: str, value: Any, margin: str, indent: int) -> str:
    if isinstance(value, Mapping):
        inner = format_message(value, indent + 1)
        return f"{margin}{name} {{\n{inner}{margin}}}\n" if inner else f"{margin}{name} {{ }}\n"
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return "".join(_format_field(name, item, margin, indent) for item in value)
        return f"{margin}{name}: [{', '.join(map(_format_scalar, value))}]\n"
    return f"{margin}{name}: {_format_scalar(value)}\n"


def _format_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | EnumName):
        return str(value)
    return '"' + "".join(_ESCAPES.get(mark, mark) for mark in str(value)) + '"'
