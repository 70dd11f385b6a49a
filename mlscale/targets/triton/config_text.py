"""Write and read protobuf's text format, as far as Triton's `config.pbtxt` needs it; without the package protobuf.

A message is a mapping, a list a repeated field. Integers, truth values and texts are written as such, the names of an
enumeration as `EnumName`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TOKEN = re.compile(r'\s+|#[^\n]*|(?P<token>[A-Za-z_]\w*|-?\d+(?:\.\d+)?|"(?:[^"\\\n]|\\.)*"|[{}\[\]:,])')
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN = {escape: mark for mark, escape in _ESCAPES.items()}
_TRUTH = {"true": True, "false": False}


class EnumName(str):
    """A name of an enumeration, which is written without quotes."""


def format_message(message: Mapping[str, Any], indent: int = 0) -> str:
    """Return a message, a field in a line."""
    return "".join(_format_field(name, value, "  " * indent, indent) for name, value in message.items())


def parse_message(text: str) -> dict[str, Any]:
    """Return a message; every field that occurs more than once, and every list, is a list.

    Raises:
        ValueError: it is not what `format_message` writes.
    """
    tokens = _split_tokens(text)
    return _parse_fields(tokens, "")


def list_field(message: Mapping[str, Any], name: str) -> list[Any]:
    """Return the values of a repeated field, which a message may have once, several times, or not at all."""
    value = message.get(name, [])
    return value if isinstance(value, list) else [value]


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


def _split_tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"line {text.count(chr(10), 0, at) + 1} can't be read")
        at = match.end()
        if match["token"] is not None:
            yield match["token"]


def _parse_fields(tokens: Iterator[str], end: str) -> dict[str, Any]:
    message: dict[str, Any] = {}
    while (name := next(tokens, "")) != end:
        if not name.isidentifier():
            raise ValueError(f"a field can't begin with {name!r}")
        sign = next(tokens, "")
        if sign == "{":
            value: Any = _parse_fields(tokens, "}")
        elif sign == ":":
            value = _parse_value(tokens, next(tokens, ""))
        else:
            raise ValueError(f"{name} is followed by {sign!r}")
        if name in message:
            value = [*list_field(message, name), *(value if isinstance(value, list) else [value])]
        message[name] = value
    return message


def _parse_value(tokens: Iterator[str], first: str) -> Any:
    if first == "[":
        values = []
        while (item := next(tokens, "")) != "]":
            if not item:
                raise ValueError("a list has no end")
            if item != ",":
                values.append(_parse_scalar(item))
        return values
    return _parse_scalar(first)


def _parse_scalar(token: str) -> Any:
    if token.startswith('"'):
        return re.sub(r"\\.", lambda match: _PLAIN.get(match[0], match[0]), token[1:-1])
    if token in _TRUTH:
        return _TRUTH[token]
    if token.lstrip("-").isdigit():
        return int(token)
    if token.isidentifier():
        return EnumName(token)
    raise ValueError(f"a value can't be {token!r}")
