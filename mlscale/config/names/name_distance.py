"""The distance between two names: typos of one or two keys, swapped letters, other case, other separators."""

from __future__ import annotations

from functools import cache

_DOUBLED = 0.6  # a letter that is typed twice, or once where it stands twice
_SWAPPED = 0.9  # two letters in the wrong order


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
