"""Texts of suggestions: the nearest of some names, and an override as it is typed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mlscale.config.names.name_distance import compute_distance, fold_name, get_edit_limit

_PLAIN = re.compile(r"[\w./:@+*?\-%]+(?: [\w./:@+*?\-%]+)*", re.ASCII)  # Hydra reads no other letters
# What a shell expands, or ends a word at.
_SHELL = re.compile(r"[\s$&;|<>()#*?`{}!\\]")
# Texts that would be read as another type, or as a mapping, without quotes.
_SPECIAL = re.compile(r"(?i)true|false|null|none|nan|inf|[+-]?[\d._]+(?:e[+-]?\d+)?|.*: .*")
_OVERRIDE = re.compile(r"['\"]?~|['\"]?[\w./@-]+=")
_MARGIN = 0.3  # by which the nearest name must be nearer than the next, or neither is suggested


def find_nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that was most likely meant, or None: none is near, or two are equally near.

    Case and separators do not count. Where the name lacks its end, or has the only one's words, that one is meant.
    """
    candidates = list(dict.fromkeys(names))
    typed, limit = fold_name(name), get_edit_limit(name)
    ranked = sorted(
        (compute_distance(typed, fold_name(item), limit), compute_distance(name, item), item) for item in candidates
    )
    near = [(cost, item) for cost, _, item in ranked if cost <= limit]
    # Two names that differ only in case or separators: the one with fewer plain edits comes first in `ranked`.
    alike = len(near) > 1 and fold_name(near[0][1]) == fold_name(near[1][1])
    if near and (len(near) == 1 or alike or near[0][0] == 0 or near[1][0] - near[0][0] >= _MARGIN):
        return near[0][1]
    if near:
        # Swapped letters keep every letter: `AdaWm` is AdamW, though Adam is no further away.
        swapped = [
            item for cost, item in near if cost - near[0][0] < _MARGIN and sorted(fold_name(item)) == sorted(typed)
        ]
        if len(swapped) == 1:
            return swapped[0]
        # People rarely mistype the first letter: it decides between equally near names.
        same = [item for cost, item in near if cost - near[0][0] < _MARGIN and fold_name(item)[:1] == typed[:1]]
        return same[0] if len(same) == 1 else None
    begun = [item for item in candidates if len(typed) > 2 and fold_name(item).startswith(typed)]
    return begun[0] if len(begun) == 1 else None


def format_override(path: str, value: object) -> str:
    """Return `key=value` as it is typed in a shell."""
    text = f"{path}={format_hydra_value(value)}"
    # Single quotes can't be escaped inside single quotes: double ones, with what a shell expands in them escaped.
    if "'" in text:
        return '"' + re.sub(r'([$`"\\])', r"\\\1", text) + '"'
    return f"'{text}'" if _SHELL.search(text) else text


def is_override(fix: str) -> bool:
    """Return whether a fix is made of overrides, and is not a command or a sentence."""
    return bool(_OVERRIDE.match(fix))


def name_recipe(fix: str, words: Iterable[str]) -> str:
    """Return the fix `mlscale profile` with the recipe that was typed: without it another run would be profiled."""
    recipe = next((word.partition("=")[2] for word in words if word.lstrip("+").startswith("recipe=")), "")
    return f"{fix} +recipe={recipe}" if fix == "mlscale profile" and recipe else fix


def format_hydra_value(value: object) -> str:
    """Return a value in Hydra's grammar. A text with special characters is quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ",".join(format_hydra_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{format_hydra_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not value.startswith("${"):
        quoted = not _PLAIN.fullmatch(value) or bool(_SPECIAL.fullmatch(value))
        return quote_hydra_text(value) if quoted else value
    return str(value)


def quote_hydra_text(text: str) -> str:
    """Return a text in the quotes of Hydra's grammar."""
    # It knows two escapes: the quote, and backslashes before a quote.
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return "'" + escaped + "\\" * trailing + "'"
