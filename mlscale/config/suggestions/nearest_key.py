"""The key that is nearest to a name that is none: of the same words, or a few edits away, here or elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlscale.config.names.foreign_names import load_foreign_names
from mlscale.config.names.name_distance import compute_distance, fold_name
from mlscale.config.schema.target_nodes import join_path
from mlscale.config.suggestions.alias_meanings import translate_alias
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.near_keys import KeyCandidate, advise_value, choose_best, generate_candidates

_FEW = 3  # candidates that are listed
_FOREIGN = 0.4  # a typo of a name from elsewhere
# Words that leave the meaning of a name as it is: `num_epochs` is `epochs`.
_FILLERS = frozenset({"", "n", "nb", "nr", "num", "no", "number", "of", "the", "value", "param"})


def find_nearest_key(path: str, value: object, names: Names) -> Advice | None:
    """Return the key that is nearest to `path`; None if none is near."""
    head, _, last = path.rpartition(".")
    if len(last) == 1:  # one typo away from every other letter
        return None
    if advice := _find_same_words(path, value, names):
        return advice
    ranked = list(generate_candidates(path, value, names))
    if not head or not ranked:
        ranked += _iterate_foreign_candidates(path, value, names)
    if not ranked:
        head, _, last = path.rpartition(".")
        siblings = [item.rpartition(".")[2] for item in names.paths if item.rpartition(".")[0] == head]
        having = [name for name in siblings if last in name.split("_")]
        return advise_value(join_path(head, having[0]), value, names) if len(having) == 1 else None
    # Where many are equally near, a few of them rather than none.
    return choose_best(ranked) or choose_best(sorted(ranked, key=lambda item: item.cost)[:_FEW])


def _find_same_words(path: str, value: object, names: Names) -> Advice | None:
    """Return the key, here or elsewhere, of the same words in another order: `number_of_epochs`, `epochs_max`."""
    words = _split_into_words(path.rpartition(".")[2])
    if not words:
        return None
    matches = [item for item in names.paths if _split_into_words(item.rpartition(".")[2]) == words]
    if len(matches) == 1:
        return advise_value(matches[0], value, names)
    for name, spelled in load_foreign_names().spelled.items():
        if _split_into_words(spelled) == words and (
            advice := translate_alias(load_foreign_names().keys[name], path, value, names)
        ):
            return advice
    return None


def _split_into_words(name: str) -> frozenset[str]:
    return frozenset(word for word in re.split(r"[_\-\s]+", name.lower()) if word not in _FILLERS)


def _iterate_foreign_candidates(path: str, value: object, names: Names) -> Iterator[KeyCandidate]:
    """Yield candidates for typos of names from other programs."""
    last = fold_name(path.rpartition(".")[2])
    limit = 1.0 if len(last) < 12 else 2.0
    own = {fold_name(name) for name in names.paths}
    for name, alias in load_foreign_names().keys.items():
        # In three letters nearly every name is one typo away from another.
        if len(last) < 4 or name in own or abs(len(name) - len(last)) > limit or alias.unsupported:
            continue
        cost = compute_distance(last, name, limit)
        advice = translate_alias(alias, path, value, names) if cost <= limit else None
        if advice and advice.exact:
            yield KeyCandidate(cost + _FOREIGN, advice)
