"""Keys that are near to one that does not exist: of the same name elsewhere, or a typo away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from mlscale.config.checks.templates import Advice, Names, option_types
from mlscale.config.checks.values import converted
from mlscale.config.documented_fields import MISSING, Option, shipped
from mlscale.config.suggestions.name_distance import distance, folded
from mlscale.config.suggestions.suggest import override

_MISSING_PREFIX = 0.5  # `lr` for optimizer.lr
_PART_OF_PREFIX = 0.3  # `checkpoint.keep` for callbacks.checkpoint.keep
_OTHER_OPTION = 0.6  # a key that another option of its group has
_WRONG_VALUE = 0.7  # a key that does not take the value
_FAR = 9.0  # another front part
_MARGIN = 0.4  # by which the best must be better than the next, or both are listed
_FEW = 3  # candidates that are listed


@dataclass(frozen=True)
class Candidate:
    cost: float
    fix: str


def same_key(path: str, value: object, names: Names, *, anywhere: bool) -> Advice | None:
    """Return the key of the same name, ignoring case and separators, in the group that was meant or `anywhere`."""
    head, _, last = path.rpartition(".")
    here = [item for item in names.paths if folded(item.rpartition(".")[2]) == folded(last)]
    if anywhere:
        documented = [item for item in here if is_documented(item)]
        found = [Candidate(0, with_value(item, value, names)) for item in documented or here]
        found = found or [Candidate(0, fix) for fix, _ in _of_options(path, value, names)]
    else:
        joined = [item for item in names.paths if "." in item and folded(item) == folded(path)]
        if joined:
            return Advice(with_value(joined[0], value, names))
        front = _fronts(head, names)
        found = [Candidate(front(item.rpartition(".")[0]), with_value(item, value, names)) for item in here]
        if head:
            others = _of_options(path, value, names)
            found += [Candidate(front(key.rpartition(".")[0]) + _OTHER_OPTION, fix) for fix, key in others]
        # A bare name (`lr`) matches a key at the top only; the same key elsewhere is searched with `anywhere`, after
        # foreign names.
        found = [item for item in found if item.cost < (_FAR if head else _MISSING_PREFIX)]
    return best_of(found)


def _of_options(path: str, value: object, names: Names) -> Iterator[tuple[str, str]]:
    """Yield the keys of this name in options that are not chosen: the override to type, and the key."""
    head, _, last = path.rpartition(".")
    for option in _options(names):
        documented = [field.path for field in option.fields]
        for key in option_types(option.group, option.name) if option.package == head else documented:
            same = key not in names.paths and folded(key.rpartition(".")[2]) == folded(last)
            if same and (fix := _of_option(option, key, value, path)):
                yield fix, key


@cache
def _documented_paths() -> frozenset[str]:
    return frozenset(field.path for option in shipped().options for field in option.fields)


def is_documented(path: str) -> bool:
    return path in _documented_paths()


def best_of(candidates: Sequence[Candidate]) -> Advice | None:
    """Return the cheapest candidate, with those that are as good as it."""
    ranked = sorted(candidates, key=lambda item: item.cost)
    return _listed([item.fix for item in ranked if item.cost - ranked[0].cost < _MARGIN])


def _listed(fixes: Sequence[str]) -> Advice | None:
    """Return one suggestion, or a few candidates; of options of one group that have the same key, the first."""
    keys: dict[str, str] = {}
    for fix in fixes:
        keys.setdefault(key_of(fix), fix)
    if not 0 < len(keys) <= _FEW:
        return None
    first, *others = keys.values()
    if others:
        return Advice(" or ".join(keys.values()), "several names are equally near")
    options = [fix.partition(" ")[0] for fix in fixes if key_of(fix) != fix.partition("=")[0]]
    return Advice(first, f"options that have it: {', '.join(options)}" if len(options) > 1 else "")


def key_of(fix: str) -> str:
    """Return the key that a suggestion is about: that of its first word which is not an option."""
    words = [word.strip("\"'").partition("=")[0] for word in fix.split(" ")]
    return next((word for word in words if "." in word), words[0])


def with_value(path: str, value: object, names: Names) -> str:
    types = names.types(path)
    fits, form = converted(value, types)
    return override(path, form) if fits else f"{path}=<{types[-1].text}>"


def _of_option(option: Option, path: str, value: object, typed: str) -> str:
    """Return the option that brings a key, the key, and what else the option needs; "" where it takes no such value."""
    types = option_types(option.group, option.name).get(path, ())
    fits, form = converted(value, types)
    if not fits and typed.rpartition(".")[0] != path.rpartition(".")[0]:
        return ""
    chosen = f"[default,{option.name}]" if option.group == "callbacks" else option.name
    needed = [item for item in option.fields if item.default == MISSING and item.path != path]
    others = [f"{item.path}=<{item.type.text if item.type else 'value'}>" for item in needed]
    setting = override(path, form) if fits else f"{path}=<{types[-1].text}>"
    return " ".join([f"{option.group}={chosen}", setting, *others])


def _options(names: Names) -> Iterator[Option]:
    """Yield the options that may be chosen in addition to those that are."""
    for option in shipped().options:
        if option.target is not None and option.name in names.groups.get(option.group, ()):
            yield option


def candidates(path: str, value: object, names: Names) -> Iterator[Candidate]:
    """Yield every key that is near to what was typed; that of an option which is not chosen costs a little more."""
    front = _fronts(path.rpartition(".")[0], names)
    for name in names.paths:
        cost = _cost(path, name, front)
        if cost is not None:
            fits, _ = converted(value, names.types(name))
            if fits or front(name.rpartition(".")[0]) == 0:
                yield Candidate(cost + (0 if fits else _WRONG_VALUE), with_value(name, value, names))
    for option in _options(names):
        for field in option.fields:
            far = None if field.path in names.paths else _cost(path, field.path, front)
            if far is not None and (fix := _of_option(option, field.path, value, path)):
                yield Candidate(far + _OTHER_OPTION, fix)


def _cost(path: str, name: str, front_of: Callable[[str], float]) -> float | None:
    """Return the distance from the typed key: the edits of its last part, and the cost of its front part; None if too
    far.
    """
    head, _, last = path.rpartition(".")
    other_head, _, other = name.rpartition(".")
    front = front_of(other_head)
    typed = folded(last)
    limit = _limit(typed, same_front=bool(head) and front == 0)
    costs = []
    if front < _FAR and (cost := distance(typed, folded(other), limit)) <= limit:
        costs.append(cost + front)
    # Compared as a whole, too: a dot that is missing or in the wrong place (`trainermax_epochs`) changes both parts.
    if (whole := distance(folded(path), folded(name), 2.0)) <= 2 and len(folded(path)) > 5:
        costs.append(whole)
    return min(costs) if costs else None


def _fronts(typed: str, names: Names) -> Callable[[str], float]:
    """Return a function for the cost to read the typed front part as another one: one that exists is not a typo."""
    exists = typed in names.groups or any(name.startswith(f"{typed}.") for name in names.paths)

    @cache
    def front(other: str) -> float:
        cost = _front(typed, other)
        # `optimizer.lr` must not be read as a typo of another group with a key `lr`.
        return cost if cost < 1 or not exists else _FAR

    return front


def _front(typed: str, front: str) -> float:
    """Return the cost to read one front part as another: nothing for the same one, little for a part of it."""
    if folded(typed) == folded(front) or typed.lower() == front.lower():
        return 0.0
    if not typed:
        return _MISSING_PREFIX
    if front.endswith(f".{typed}") or front.startswith(f"{typed}."):
        return _PART_OF_PREFIX
    limit = 1.0 if len(typed) < 5 else 2.0
    cost = distance(folded(typed), folded(front), limit)
    if cost <= limit:
        return cost
    # Of a front part of several names one was misspelt, or it is the only one that was typed, misspelt.
    last = front.rpartition(".")[2]
    cost = distance(folded(typed.rpartition(".")[2]), folded(last), limit)
    return cost + _PART_OF_PREFIX if "." in front and cost <= limit else _FAR


def _limit(typed: str, *, same_front: bool) -> float:
    length = len(typed)
    if same_front:
        return 1.0 if length <= 3 else 2.0 if length <= 7 else 3.0
    return 1.0 if length <= 7 else 2.0 if length <= 11 else 3.0
