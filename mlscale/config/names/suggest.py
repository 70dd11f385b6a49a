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
_OVERRIDE = re.compile(r"['\"]?~|['\"]?[\w./@-]+=")
_DOUBLED = 0.6  # a letter that is typed twice, or once where it stands twice
_SWAPPED = 0.9  # two letters in the wrong order
_MARGIN = 0.3  # by which the nearest name must be nearer than the next, or neither is suggested


@cache
def fold_name(name: str) -> str:
    """Return the name without what people write differently: case, and the separators `_`, `-`, `.` and space."""
    return "".join(letter for letter in name.lower() if letter not in "_-. ")


@cache
def _compute_letter_mask(name: str) -> int:
    """Return the set of letters of a name as a bit mask."""
    bits = 0
    for letter in name:
        # 64 bits are enough for a lower bound: two letters that share a bit only make it looser, never wrong.
        bits |= 1 << (ord(letter) & 63)
    return bits


@cache
def compute_distance(typed: str, name: str, limit: float = 4.0) -> float:
    """Return the weighted number of edits from `typed` to `name`, both folded; `limit` + 1 where it is above `limit`.

    Damerau–Levenshtein (optimal string alignment), with a doubled letter and a swapped pair cheaper than other edits.
    """
    far = limit + 1
    if typed == name:
        return 0.0
    letters, others = _compute_letter_mask(typed), _compute_letter_mask(name)
    # A bound that is cheap: most names are ruled out by it, without a table of edits.
    if max((letters & ~others).bit_count(), (others & ~letters).bit_count()) > limit:
        return far  # each letter that only one of them has costs an edit
    before: list[float] = []
    row = [_compute_removal_cost(name, index) for index in range(len(name) + 1)]
    for i, letter in enumerate(typed, 1):
        last, row = row, [float(i)]
        for j, other in enumerate(name, 1):
            extra = _DOUBLED if i > 1 and typed[i - 2] == letter else 1.0
            absent = _DOUBLED if j > 1 and name[j - 2] == other else 1.0
            cost = min(last[j - 1] + (letter != other), last[j] + extra, row[j - 1] + absent)
            # Only neighbours can be swapped, and no letter is edited twice: this is what typing errors are.
            if i > 1 and j > 1 and letter == name[j - 2] and typed[i - 2] == other:
                cost = min(cost, before[j - 2] + _SWAPPED)
            row.append(cost)
        # Two rows, because a swapped pair continues from the row before the last. Costs never fall from row to row.
        if min(row) > limit and min(last) > limit:
            return far
        before = last
    return row[-1] if row[-1] <= limit else far


def _compute_removal_cost(name: str, count: int) -> float:
    return sum(_DOUBLED if index and name[index - 1] == name[index] else 1.0 for index in range(count))


def get_edit_limit(name: str) -> float:
    """Return the edits that a typo of this length may have before another name is meant."""
    length = len(fold_name(name))
    return 1.0 if length <= 5 else 2.0 if length <= 9 else 3.0


def is_extension(name: str, other: str) -> bool:
    """Return whether `name` is `other` with a word or a number added, which is another name and no typo: `my_resnet`,
    `resnet50`.
    """
    typed, short = fold_name(name), fold_name(other)
    rest = typed.removeprefix(short) if typed.startswith(short) else typed.removesuffix(short)
    return 0 < len(rest) < len(typed) and (len(rest) > 1 or rest.isdigit())


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
