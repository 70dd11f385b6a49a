"""The nearest of some names, by typing errors, and an override as it is typed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

_PLAIN = re.compile(r"[\w./:@+*?\-%]+(?: [\w./:@+*?\-%]+)*", re.ASCII)  # Hydra reads no other letters
# What a shell expands, or ends a word at.
_SHELL = re.compile(r"[\s$&;|<>()#*?`{}!\\]")
# Texts that would be read as another type, or as a mapping, without quotes.
_SPECIAL = re.compile(r"(?i)true|false|null|none|nan|inf|[+-]?[\d._]+(?:e[+-]?\d+)?|.*: .*")


@cache
def fold_name(name: str) -> str:
    """Return the name without what people write differently: case, and the separators `_`, `-`, `.` and space."""
    return "".join(letter for letter in name.lower() if letter not in "_-. ")


def compute_distance(typed: str, name: str, limit: int = 4) -> int:
    """Return the number of edits from `typed` to `name`; `limit` + 1 where it is above `limit`.

    Damerau–Levenshtein (optimal string alignment): a letter more, less or another, or two neighbours swapped.
    """
    if abs(len(typed) - len(name)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(name) + 1))
    for i, letter in enumerate(typed, 1):
        last, row = row, [i]
        for j, other in enumerate(name, 1):
            cost = min(last[j - 1] + (letter != other), last[j] + 1, row[j - 1] + 1)
            if i > 1 and j > 1 and letter == name[j - 2] and typed[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        # Two rows, because a swapped pair continues from the row before the last. Costs never fall from row to row.
        if min(row) > limit and min(last) > limit:
            return limit + 1
        before = last
    return min(row[-1], limit + 1)


def get_edit_limit(name: str) -> int:
    """Return the edits that a typo of this length may have before another name is meant."""
    length = len(fold_name(name))
    return 1 if length <= 5 else 2 if length <= 9 else 3


def is_extension(name: str, other: str) -> bool:
    """Return whether `name` is `other` with a word or a number added, which is another name and no typo: `my_resnet`,
    `resnet50`.
    """
    typed, short = fold_name(name), fold_name(other)
    rest = typed.removeprefix(short) if typed.startswith(short) else typed.removesuffix(short)
    return 0 < len(rest) < len(typed) and (len(rest) > 1 or rest.isdigit())


def find_nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that was most likely meant, or None: none is near, or two are equally near.

    Case and separators do not count. Of equally near names one with the same letters is meant (`AdaWm` is AdamW, not
    Adam), else one with the same first letter. Where the name lacks its end, the only one that begins so is meant.
    """
    typed, limit = fold_name(name), get_edit_limit(name)
    # Of names that differ only in case or separators the one with fewer plain edits.
    folded = {fold_name(item): item for item in sorted(names, key=lambda item: -compute_distance(name, item))}
    ranked = sorted(
        (compute_distance(typed, item, limit), set(item) != set(typed), item[:1] != typed[:1], item) for item in folded
    )
    near = [item for item in ranked if item[0] <= limit]
    if near:
        return folded[near[0][-1]] if len(near) == 1 or near[0][:3] != near[1][:3] else None
    begun = [item for item in folded if len(typed) > 2 and item.startswith(typed)]
    return folded[begun[0]] if len(begun) == 1 else None


def format_override(path: str, value: object) -> str:
    """Return `key=value` as it is typed in a shell."""
    text = f"{path}={format_hydra_value(value)}"
    # Single quotes can't be escaped inside single quotes: double ones, with what a shell expands in them escaped.
    if "'" in text:
        return '"' + re.sub(r'([$`"\\])', r"\\\1", text) + '"'
    return f"'{text}'" if _SHELL.search(text) else text


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
