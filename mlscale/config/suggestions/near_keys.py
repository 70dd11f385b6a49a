"""Keys that are near to one that does not exist: of the same name elsewhere, or a typo away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from mlscale.config.checks.templates import Advice, Names, can_choose, get_option_types
from mlscale.config.checks.values import convert_value
from mlscale.config.documented_fields import MISSING, Option, get_shipped_fields
from mlscale.config.suggestions.name_distance import compute_distance, fold_name
from mlscale.config.suggestions.suggest import format_override

_MISSING_PREFIX = 0.5  # `lr` for optimizer.lr
_PART_OF_PREFIX = 0.3  # `checkpoint.keep` for callbacks.checkpoint.keep
_OTHER_OPTION = 0.6  # a key that another option of its group has
_WRONG_VALUE = 0.7  # a key that does not take the value
_FAR = 9.0  # another front part
_MARGIN = 0.4  # by which the best must be better than the next, or both are listed
_FEW = 3  # candidates that are listed


@dataclass(frozen=True)
class KeyCandidate:
    cost: float
    fix: str


def find_same_key(path: str, value: object, names: Names, *, anywhere: bool) -> Advice | None:
    """Return the key of the same name, ignoring case and separators, in the group that was meant or `anywhere`."""
    head, _, last = path.rpartition(".")
    here = [item for item in names.paths if fold_name(item.rpartition(".")[2]) == fold_name(last)]
    if anywhere:
        documented = [item for item in here if is_documented(item)]
        matches = [KeyCandidate(0, format_with_value(item, value, names)) for item in documented or here]
        matches = matches or [KeyCandidate(0, fix) for fix, _ in _iterate_option_keys(path, value, names)]
    else:
        joined = [item for item in names.paths if "." in item and fold_name(item) == fold_name(path)]
        if joined:
            return Advice(format_with_value(joined[0], value, names))
        front = _create_front_cost(head, names)
        matches = [KeyCandidate(front(item.rpartition(".")[0]), format_with_value(item, value, names)) for item in here]
        if head:
            others = _iterate_option_keys(path, value, names)
            matches += [KeyCandidate(front(key.rpartition(".")[0]) + _OTHER_OPTION, fix) for fix, key in others]
        # A bare name (`lr`) matches a key at the top only; the same key elsewhere is searched with `anywhere`, after
        # foreign names.
        matches = [item for item in matches if item.cost < (_FAR if head else _MISSING_PREFIX)]
    return choose_best(matches)


def _iterate_option_keys(path: str, value: object, names: Names) -> Iterator[tuple[str, str]]:
    """Yield the keys of this name in options that are not chosen: the override to type, and the key."""
    head, _, last = path.rpartition(".")
    for option in _iterate_options(names):
        documented = [field.path for field in option.fields]
        for key in get_option_types(option.group, option.name) if option.package == head else documented:
            same = key not in names.paths and fold_name(key.rpartition(".")[2]) == fold_name(last)
            if same and (fix := _build_option_fix(option, key, value, path)):
                yield fix, key


@cache
def _list_documented_paths() -> frozenset[str]:
    return frozenset(field.path for option in get_shipped_fields().options for field in option.fields)


def is_documented(path: str) -> bool:
    return path in _list_documented_paths()


def choose_best(candidates: Sequence[KeyCandidate]) -> Advice | None:
    """Return the cheapest candidate, with those that are as good as it."""
    ranked = sorted(candidates, key=lambda item: item.cost)
    return _combine_fixes([item.fix for item in ranked if item.cost - ranked[0].cost < _MARGIN])


def _combine_fixes(fixes: Sequence[str]) -> Advice | None:
    """Return one suggestion, or a few candidates; of options of one group that have the same key, the first."""
    keys: dict[str, str] = {}
    for fix in fixes:
        keys.setdefault(extract_key(fix), fix)
    if not 0 < len(keys) <= _FEW:
        return None
    first, *others = keys.values()
    if others:
        return Advice(" or ".join(keys.values()), "several names are equally near")
    options = [fix.partition(" ")[0] for fix in fixes if extract_key(fix) != fix.partition("=")[0]]
    return Advice(first, f"options that have it: {', '.join(options)}" if len(options) > 1 else "")


def extract_key(fix: str) -> str:
    """Return the key that a suggestion is about: that of its first word which is not an option."""
    words = [word.strip("\"'").partition("=")[0] for word in fix.split(" ")]
    return next((word for word in words if "." in word), words[0])


def format_with_value(path: str, value: object, names: Names) -> str:
    types = names.types(path)
    fits, form = convert_value(value, types)
    return format_override(path, form) if fits else f"{path}=<{types[-1].text}>"


def _build_option_fix(option: Option, path: str, value: object, typed: str) -> str:
    """Return the option that brings a key, the key, and what else the option needs; "" where it takes no such value."""
    types = get_option_types(option.group, option.name).get(path, ())
    fits, form = convert_value(value, types)
    if not fits and typed.rpartition(".")[0] != path.rpartition(".")[0]:
        return ""
    chosen = f"[default,{option.name}]" if option.group == "callbacks" else option.name
    needed = [item for item in option.fields if item.default == MISSING and item.path != path]
    others = [f"{item.path}=<{item.type.text if item.type else 'value'}>" for item in needed]
    setting = format_override(path, form) if fits else f"{path}=<{types[-1].text}>"
    return " ".join([f"{option.group}={chosen}", setting, *others])


def _iterate_options(names: Names) -> Iterator[Option]:
    """Yield the options that may be chosen in addition to those that are."""
    for option in get_shipped_fields().options:
        available = option.target is not None and option.name in names.groups.get(option.group, ())
        if available and can_choose(option.group, option.name, names):
            yield option


def generate_candidates(path: str, value: object, names: Names) -> Iterator[KeyCandidate]:
    """Yield every key that is near to what was typed; that of an option which is not chosen costs a little more."""
    front = _create_front_cost(path.rpartition(".")[0], names)
    for name in names.paths:
        cost = _compute_cost(path, name, front)
        if cost is not None:
            fits, _ = convert_value(value, names.types(name))
            if fits or front(name.rpartition(".")[0]) == 0:
                yield KeyCandidate(cost + (0 if fits else _WRONG_VALUE), format_with_value(name, value, names))
    for option in _iterate_options(names):
        for field in option.fields:
            far = None if field.path in names.paths else _compute_cost(path, field.path, front)
            if far is not None and (fix := _build_option_fix(option, field.path, value, path)):
                yield KeyCandidate(far + _OTHER_OPTION, fix)


def _compute_cost(path: str, name: str, front_of: Callable[[str], float]) -> float | None:
    """Return the distance from the typed key: the edits of its last part, and the cost of its front part; None if too
    far.
    """
    head, _, last = path.rpartition(".")
    other_head, _, other = name.rpartition(".")
    front = front_of(other_head)
    typed = fold_name(last)
    limit = _get_typo_limit(typed, same_front=bool(head) and front == 0)
    costs = []
    if front < _FAR and (cost := compute_distance(typed, fold_name(other), limit)) <= limit:
        costs.append(cost + front)
    # Compared as a whole, too: a dot that is missing or in the wrong place (`trainermax_epochs`) changes both parts.
    if (whole := compute_distance(fold_name(path), fold_name(name), 2.0)) <= 2 and len(fold_name(path)) > 5:
        costs.append(whole)
    return min(costs) if costs else None


def _create_front_cost(typed: str, names: Names) -> Callable[[str], float]:
    """Return a function for the cost to read the typed front part as another one: one that exists is not a typo."""
    exists = typed in names.groups or any(name.startswith(f"{typed}.") for name in names.paths)

    @cache
    def get_front_cost(other: str) -> float:
        cost = _compute_front_cost(typed, other)
        # `optimizer.lr` must not be read as a typo of another group with a key `lr`.
        return cost if cost < 1 or not exists else _FAR

    return get_front_cost


def _compute_front_cost(typed: str, front: str) -> float:
    """Return the cost to read one front part as another: nothing for the same one, little for a part of it."""
    if fold_name(typed) == fold_name(front) or typed.lower() == front.lower():
        return 0.0
    if not typed:
        return _MISSING_PREFIX
    if front.endswith(f".{typed}") or front.startswith(f"{typed}."):
        return _PART_OF_PREFIX
    limit = 1.0 if len(typed) < 5 else 2.0
    cost = compute_distance(fold_name(typed), fold_name(front), limit)
    if cost <= limit:
        return cost
    # Of a front part of several names one was misspelt, or it is the only one that was typed, misspelt.
    last = front.rpartition(".")[2]
    cost = compute_distance(fold_name(typed.rpartition(".")[2]), fold_name(last), limit)
    return cost + _PART_OF_PREFIX if "." in front and cost <= limit else _FAR


def _get_typo_limit(typed: str, *, same_front: bool) -> float:
    length = len(typed)
    if same_front:
        return 1.0 if length <= 3 else 2.0 if length <= 7 else 3.0
    return 1.0 if length <= 7 else 2.0 if length <= 11 else 3.0
