"""Names that are more edits away than a plain typo, where the value or the lack of any other name makes one likely."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mlscale.config.names.name_distance import compute_distance, fold_name
from mlscale.config.names.suggest import is_override
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.near_keys import KeyCandidate, advise_value

_FEW = 3  # candidates that are listed
_MARGIN = 0.5  # by which the best must be better than the next, or both are listed
_WRONG_VALUE = 0.5
_SHORT = 5
_LACKING = 2.0  # swapped letters around one that is missing, which an alignment counts as three edits


def find_group_of_value(path: str, value: object, names: Names) -> Advice | None:
    """Return the group that was meant by a misspelt one, of which the value is an option: `pak=classification`."""
    if not isinstance(value, str) or "." in path:
        return None
    having = [group for group, options in names.groups.items() if value in options and "/" not in group]
    typed = fold_name(path)
    costs = {group: compute_distance(typed, fold_name(group), _get_limit(typed)) for group in having}
    near = sorted((cost, group) for group, cost in costs.items() if cost <= _get_limit(typed))
    # `none` and `default` are options of many groups: then only one that is clearly nearer.
    if not near or (len(near) > 1 and near[1][0] - near[0][0] < _MARGIN):
        return None
    return Advice(f"{near[0][1]}={value}")


def find_distant_keys(path: str, value: object, names: Names) -> Advice | None:
    """Return up to three keys next to the typed one that begin with its letter and are two or three edits away."""
    ranked = sorted(_iterate_distant_keys(path, value, names), key=lambda item: item.cost)
    best = [item.advice for item in ranked if item.cost - ranked[0].cost < _MARGIN][:_FEW]
    if not best:
        return None
    exact = all(advice.exact for advice in best)
    return Advice("\n".join(advice.fix for advice in best), "no key is nearer", exact)


def find_distant_options(option: str, options: Sequence[str]) -> list[str]:
    """Return up to three options that are an edit further away than a typo, nearest first."""
    typed = fold_name(option)
    ranked = sorted((cost, item) for cost, item in _iterate_costs(typed, options))
    return [item for cost, item in ranked if cost - ranked[0][0] < _MARGIN][:_FEW]


def _iterate_distant_keys(path: str, value: object, names: Names) -> Iterator[KeyCandidate]:
    head, _, last = path.rpartition(".")
    siblings = {item.rpartition(".")[2]: item for item in names.paths if item.rpartition(".")[0] == head}
    for cost, name in _iterate_costs(fold_name(last), siblings):
        advice = advise_value(siblings[name], value, names)
        if not is_override(advice.fix):  # one of a few values: which of them is not known
            advice = Advice(f"{siblings[name]}=<{names.types(siblings[name])[-1].text}>", exact=False)
        yield KeyCandidate(cost + (0 if advice.exact else _WRONG_VALUE), advice)


def _iterate_costs(typed: str, names: Iterable[str]) -> Iterator[tuple[float, str]]:
    """Yield the names that begin with the typed letter and are near enough to have half of the letters."""
    limit = _get_limit(typed)
    for name in names:
        folded = fold_name(name)
        if _strip_digits(folded) == _strip_digits(typed):  # `fp7` is another type than fp16, not a typo of it
            continue
        cost = compute_distance(typed, folded, limit) if folded[:1] == typed[:1] else limit + 1
        if cost > limit and folded[:1] == typed[:1] and _lacks_one_letter(typed, folded):
            cost = _LACKING
        if cost <= min(limit, max(len(typed), len(folded)) / 2):
            yield cost, name


def _lacks_one_letter(typed: str, name: str) -> bool:
    """Return whether a name has the typed letters in any order, and one more: `slce` of `scale`."""
    lacking, extra = Counter(name) - Counter(typed), Counter(typed) - Counter(name)
    return len(typed) > 3 and not extra and lacking.total() == 1


def _strip_digits(name: str) -> str:
    return re.sub(r"\d", "", name)


def _get_limit(typed: str) -> float:
    return 2.0 if len(typed) <= _SHORT else 3.0
