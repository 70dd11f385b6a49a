"""The override to type instead of a key that isn't valid.

A missing suggestion is better than a wrong one: what is suggested are keys and options that exist, with values that
their types accept; where two names are equally near, both are listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlscale.config.names.foreign_names import Alias, load_foreign_names
from mlscale.config.names.name_distance import compute_distance, fold_name
from mlscale.config.names.suggest import find_nearest, format_hydra_value, is_override
from mlscale.config.schema.key_owners import BUILDS_SEVERAL
from mlscale.config.suggestions.alias_meanings import find_group_option, translate_alias
from mlscale.config.suggestions.completed_advice import complete_advice
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.near_keys import (
    KeyCandidate,
    advise_value,
    choose_best,
    extract_key,
    find_same_key,
    is_documented,
)
from mlscale.config.suggestions.near_nodes import correct_first_part, find_node_key
from mlscale.config.suggestions.nearest_key import find_nearest_key


def suggest_key(path: str, value: object, names: Names) -> Advice | None:
    """Return the override to type instead of the unknown `path`: the same key spelled right, a foreign name's meaning,
    the same key elsewhere, or the nearest one; None if none is near.
    """
    advice = _suggest(path, value, names)
    if advice is None:
        return None
    completed = complete_advice(advice, path, names)
    if not completed.fix.startswith("leave ") or load_foreign_names().find_alias(path) is not None:
        return completed
    # The group alone is wrong: what was typed is right, though this run has it already.
    return advice if advice.fix == _suggest_misspelt_group(path, value, names.groups) else completed


def _suggest(path: str, value: object, names: Names) -> Advice | None:
    # The order of the checks is a decision (docs/decisions/0027): the surest reading first.
    here = find_same_key(path, value, names, anywhere=False)
    if here is not None and extract_key(here.fix) in names.paths:
        return here
    if node_key := find_node_key(path, value, names):
        return node_key
    if (corrected := correct_first_part(path, names)) and (
        advice := _suggest_in_group(corrected, value, names, typed=path)
    ):
        return advice
    whole = load_foreign_names().find_path_alias(path)
    if whole is not None and (advice := translate_alias(whole, path, value, names)):
        return advice
    if named := _find_named_group(path, names):
        return translate_alias(named, path, value, names)
    alias = load_foreign_names().find_alias(path)
    meant = translate_alias(alias, path, value, names) if alias is not None else None
    if sibling := _find_sibling(path, value, names):
        agrees = meant is not None and alias is not None and _keeps_value(alias, meant, value)
        return _join_alternatives(sibling, here or (meant if agrees else None))
    if alias is not None and (synonym := _find_synonym(path, value, alias, names)):
        return synonym
    same = find_same_key(path, value, names, anywhere=True)
    lacking = _explain_lacking(alias, path, names) if alias is not None else None
    # A key of another option: unless the foreign name means another one of the same group.
    if here is not None and (here.exact or not (_is_typable(alias, meant) or (lacking and meant is None))):
        if meant is None or _is_refused(alias, meant) or _extract_group(meant.fix) != _extract_group(path):
            return here
        # `model.model_name=resnet18` is the option of that name; misspelt, it may be the key as well.
        return meant if path == extract_key(here.fix) else _join_alternatives(meant, here)
    if alias is not None and meant is not None and not _is_preferred(same, meant, alias, names):
        return meant
    if option := _suggest_misspelt_group(path, value, names.groups):
        return Advice(option)
    explained = lacking or _explain_refused(path)
    certain = same if same is not None and same.exact else None
    return certain or meant or explained or same or find_nearest_key(path, value, names)


def _suggest_in_group(path: str, value: object, names: Names, *, typed: str) -> Advice | None:
    """Return the advice for a key whose first part was corrected; of a group alone, for the empty value of one."""
    if "." not in path:
        options = names.groups.get(path, ())
        choice = (
            Advice(f"{path}=none") if "none" in options else Advice(f"{path} is one of {', '.join(options)}", "", False)
        )
        return choice if value == {} and options else None
    if path in names.paths:
        return advise_value(path, value, names)
    group, _, entry = path.partition(".")
    if value == {} and group in BUILDS_SEVERAL and (option := find_group_option(group, entry, names)):
        return Advice(option)
    advice = suggest_key(path, value, names)
    return (
        replace(advice, fix=advice.fix.replace(path, typed)) if advice and advice.fix.startswith("leave ") else advice
    )


def _find_sibling(path: str, value: object, names: Names) -> Advice | None:
    """Return the key next to the typed one that is one edit away and takes the value; None in a group that does not
    exist.
    """
    head, _, last = path.rpartition(".")
    typed, candidates = fold_name(last), []
    for item in names.paths if head else ():
        front, _, name = item.rpartition(".")
        cost = compute_distance(typed, fold_name(name), 1.0)
        # One letter is one edit away from every other: it is what is left of a name of two.
        near = cost <= 1 if len(typed) > 1 else typed in name and len(name) == 2
        if front == head and near and (advice := advise_value(item, value, names)).exact:
            candidates.append(KeyCandidate(cost, advice))
    return choose_best(candidates)


def _find_synonym(path: str, value: object, alias: Alias, names: Names) -> Advice | None:
    """Return the key next to the typed one that is called the same elsewhere: `task.lr` for `task.learning_rate` of a
    user's own class.
    """
    head, _, _ = path.rpartition(".")
    known = load_foreign_names().keys
    siblings = [item for item in names.paths if head and item.rpartition(".")[0] == head]
    same = [item for item in siblings if known.get(fold_name(item.rpartition(".")[2])) is alias]
    advice = advise_value(same[0], value, names) if len(same) == 1 else None
    return advice if advice is not None and advice.exact else None


def _keeps_value(alias: Alias, meant: Advice, value: object) -> bool:
    """Return whether a foreign name's meaning holds what was typed: `device=4` as `accelerator=gpu` loses the count."""
    if not meant.exact or _is_refused(alias, meant):
        return False
    return alias.fix_of(value) is not None or format_hydra_value(value) in meant.fix


def _join_alternatives(sibling: Advice, other: Advice | None) -> Advice:
    """Return the key next to the typed one, and the other meaning as an alternative where it is about another key."""
    if other is None or not other.exact or other.fix.startswith("leave "):
        return sibling
    if extract_key(other.fix) == extract_key(sibling.fix):
        return other
    return Advice(f"{sibling.fix}\n{other.fix}", "several names are equally near")


def _explain_refused(path: str) -> Advice | None:
    """Return the advice for a key of a dictionary that isn't supported as a whole: `optim_kwargs={eps: 1e-7}`."""
    head, dot, _ = path.partition(".")
    alias = load_foreign_names().find_alias(head) if dot else None
    if alias is None or alias.to or not alias.unsupported:
        return None
    return Advice(f"leave {head} out", f"not supported: {alias.unsupported}")


def _explain_lacking(alias: Alias, path: str, names: Names) -> Advice | None:
    """Return the advice for a setting that the chosen task or data does not have: `label_smoothing` of a language."""
    for template in alias.to[:1]:
        key = template.partition("=")[0]
        if key.partition(".")[0] not in ("data", "task"):
            return None
        chosen = names.facts.chosen.get(key.partition(".")[0])
        if chosen is not None and key not in names.paths:
            setting = key.rpartition(".")[2].replace("_", " ")
            return Advice(f"leave {path} out", f"{chosen} has no {setting}")
    return None


def _is_typable(alias: Alias | None, meant: Advice | None) -> bool:
    """Return whether a foreign name's meaning is an override: neither a sentence, nor that there is no such setting."""
    return meant is not None and is_override(meant.fix) and not _is_refused(alias, meant)


def _is_refused(alias: Alias | None, meant: Advice) -> bool:
    return alias is not None and bool(alias.unsupported) and meant.fix.startswith("leave ")


def _extract_group(text: str) -> str:
    """Return the first part of a key path, or of the first key of a suggestion."""
    return text.partition("=")[0].partition(".")[0].strip("\"'")


def _is_preferred(same: Advice | None, meant: Advice, alias: Alias, names: Names) -> bool:
    """Return whether the key of the same name is suggested rather than the meaning of the foreign name: it is the only
    one and documented, or the foreign setting does not exist here.
    """
    if same is None:
        return False
    key = extract_key(same.fix)
    if _is_refused(alias, meant):
        return key in names.paths
    if same.why or alias.first:
        return False
    meant_keys = [word.partition("=")[0] for word in meant.fix.split(" ")]
    return key not in meant_keys and key in names.paths and is_documented(key)


def _find_named_group(path: str, names: Names) -> Alias | None:
    """Return the group whose option is named by a key of it: `strategy.name=ddp`."""
    head, _, last = path.rpartition(".")
    return Alias(group=head) if head in names.groups and last in ("name", "type", "kind", "class", "cls") else None


def _suggest_misspelt_group(path: str, value: object, groups: Mapping[str, Sequence[str]]) -> str | None:
    """Return the override for a misspelt group: `optmizer=adamw` → `optimizer=adamw`."""
    group = find_nearest(path, groups) if isinstance(value, str) and "." not in path else None
    option = find_nearest(str(value), groups[group]) if group else None
    return f"{group}={option}" if option else None
