"""Keys that are near to one that does not exist: of the same name elsewhere, or a typo away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from mlscale.config.names.name_distance import compute_distance, fold_name
from mlscale.config.names.suggest import format_override, is_override
from mlscale.config.schema.documented_fields import MISSING, Option, get_shipped_fields
from mlscale.config.schema.values import convert_value
from mlscale.config.suggestions.completed_advice import REPLACED_GROUPS
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.templates import get_option_types, is_fact_of_data

_MISSING_PREFIX = 0.5  # `lr` for optimizer.lr
_PART_OF_PREFIX = 0.3  # `checkpoint.keep` for callbacks.checkpoint.keep
_OTHER_OPTION = 0.6  # a key that another option of its group has
_NOT_COMPLETE = 0.05  # an option that needs a file, too
_OTHER_JOB = 0.1  # an option for other data, or for another task
_WRONG_VALUE = 0.7  # a key that does not take the value
_FAR = 9.0  # another front part
_MARGIN = 0.4  # by which the best must be better than the next, or both are listed
_FEW = 3  # candidates that are listed


@dataclass(frozen=True)
class KeyCandidate:
    cost: float
    advice: Advice


def find_same_key(path: str, value: object, names: Names, *, anywhere: bool) -> Advice | None:
    """Return the key of the same name, ignoring case and separators, in the group that was meant or `anywhere`."""
    head, _, last = path.rpartition(".")
    here = [item for item in names.paths if fold_name(item.rpartition(".")[2]) == fold_name(last)]
    if anywhere:
        here = [item for item in here if not is_fact_of_data(item, names) and names.facts.fits_key(item)]
        documented = [item for item in here if is_documented(item)]
        matches = [KeyCandidate(0, advise_value(item, value, names)) for item in documented or here]
        matches = matches or [candidate for candidate, _ in _iterate_option_keys(path, value, names)]
    else:
        joined = [item for item in names.paths if "." in item and fold_name(item) == fold_name(path)]
        # A dot too many or too few is a sure match: no other key may compete with it.
        if joined:
            return advise_value(joined[0], value, names)
        front = _create_front_cost(head, names)
        matches = [KeyCandidate(front(item.rpartition(".")[0]), advise_value(item, value, names)) for item in here]
        if head:
            others = _iterate_option_keys(path, value, names)
            matches += [
                replace(item, cost=item.cost + front(key.rpartition(".")[0]) + _OTHER_OPTION) for item, key in others
            ]
        # A bare name (`lr`) matches a key at the top only; the same key elsewhere is searched with `anywhere`, after
        # foreign names.
        matches = [item for item in matches if item.cost < (_FAR if head else _MISSING_PREFIX)]
    return choose_best(matches)


def _iterate_option_keys(path: str, value: object, names: Names) -> Iterator[tuple[KeyCandidate, str]]:
    """Yield the keys of this name in options that are not chosen: the candidate, and the key."""
    head, _, last = path.rpartition(".")
    for option in _iterate_options(names):
        documented = [field.path for field in option.fields]
        for key in get_option_types(option.group, option.name) if option.package == head else documented:
            same = key not in names.paths and fold_name(key.rpartition(".")[2]) == fold_name(last)
            if same and (candidate := _advise_option(option, key, value, names)):
                yield candidate, key


@cache
def _list_documented_paths() -> frozenset[str]:
    return frozenset(field.path for option in get_shipped_fields().options for field in option.fields)


def is_documented(path: str) -> bool:
    return path in _list_documented_paths()


def choose_best(candidates: Sequence[KeyCandidate]) -> Advice | None:
    """Return the cheapest candidate, with those that are as good as it."""
    ranked = sorted(candidates, key=lambda item: item.cost)
    return _combine([item.advice for item in ranked if item.cost - ranked[0].cost < _MARGIN])


def _combine(advices: Sequence[Advice]) -> Advice | None:
    """Return one suggestion, or a few candidates; of options of one group that have the same key, the first."""
    keys: dict[str, Advice] = {}
    for advice in advices:
        keys.setdefault(extract_key(advice.fix), advice)
    # A long list of candidates is no help: then none of them is really near.
    if not 0 < len(keys) <= _FEW:
        return None
    # A sentence is of use only where nothing can be typed.
    first, *others = [item for item in keys.values() if is_override(item.fix)] or [*keys.values()][:1]
    if others:
        exact = all(item.exact for item in (first, *others))
        return Advice("\n".join(item.fix for item in (first, *others)), "several names are equally near", exact)
    fixes = [item.fix for item in advices if is_override(item.fix)]
    options = [fix.partition(" ")[0] for fix in fixes if extract_key(fix) != fix.partition("=")[0]]
    return replace(first, why=f"options that have it: {', '.join(options)}") if len(options) > 1 else first


def extract_key(fix: str) -> str:
    """Return the key that a suggestion is about: that of its first word which is not an option."""
    words = [word.strip("\"'").partition("=")[0] for word in fix.split(" ")]
    return next((word for word in words if "." in word), words[0])


def advise_value(path: str, value: object, names: Names) -> Advice:
    """Return the override of a key; where it does not take the value, what it takes."""
    types = names.types(path)
    fits, form = convert_value(value, types, path)
    if fits:
        return Advice(format_override(path, form))
    return Advice(f"{path}=<{types[-1].text}>", f"{path} takes {types[-1].text}", exact=False)


def _advise_option(option: Option, path: str, value: object, names: Names) -> KeyCandidate | None:
    """Return the option that brings a key, and the key; in words where it is not for this job, or needs more than the
    key. None where it takes no such value.
    """
    fits, form = convert_value(value, get_option_types(option.group, option.name).get(path, ()), path)
    if not fits:
        return None
    suits = names.facts.fits(option.group, option.name)
    replaces = option.group in REPLACED_GROUPS and option.group in names.facts.chosen
    if replaces or not suits or any(item.default == MISSING and item.path != path for item in option.fields):
        chosen = names.facts.chosen.get(option.group)
        others = [
            item.name for item in _iterate_options(names) if item == option or _is_like(item, option, path, names)
        ]
        what = f"{path} is a key of {', '.join(f'{option.group}={name}' for name in others)}"
        advice = Advice(what, f"this run has {chosen}" if chosen else "", exact=False)
        return KeyCandidate(_NOT_COMPLETE if suits else _OTHER_JOB, advice)
    name = f"[default,{option.name}]" if option.group == "callbacks" else option.name
    return KeyCandidate(0, Advice(f"{option.group}={name} {format_override(path, form)}"))


def _is_like(other: Option, option: Option, path: str, names: Names) -> bool:
    """Return True if another option has the same key, and is of a user's own data as much: either may be meant."""
    has_key = other.group == option.group and any(item.path == path for item in other.fields)
    needs, others_needs = (any(item.default == MISSING for item in candidate.fields) for candidate in (option, other))
    # Suggestions name what this job can use, unless nothing that has the key can.
    fits = names.facts.fits
    return has_key and needs == others_needs and fits(option.group, option.name) == fits(other.group, other.name)


def _iterate_options(names: Names) -> Iterator[Option]:
    """Yield the options that are there to be chosen."""
    for option in get_shipped_fields().options:
        if option.target is not None and option.name in names.groups.get(option.group, ()):
            yield option


def generate_candidates(path: str, value: object, names: Names) -> Iterator[KeyCandidate]:
    """Yield every key that is near to what was typed; that of an option which is not chosen costs a little more."""
    front = _create_front_cost(path.rpartition(".")[0], names)
    for name in names.paths:
        cost = _compute_cost(path, name, front)
        if cost is not None:
            fits, _ = convert_value(value, names.types(name), name)
            # A value that does not fit rules a key out, unless its group was typed: then the value is the mistake.
            if fits or front(name.rpartition(".")[0]) == 0:
                yield KeyCandidate(cost + (0 if fits else _WRONG_VALUE), advise_value(name, value, names))
    for option in _iterate_options(names):
        for field in option.fields:
            # Keys of this config were candidates above.
            far = None if field.path in names.paths else _compute_cost(path, field.path, front)
            if far is not None and (candidate := _advise_option(option, field.path, value, names)):
                yield replace(candidate, cost=candidate.cost + far + _OTHER_OPTION)


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
    # Two edits turn one short group name into another.
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
