"""The override to type instead of a key that isn't valid.

A missing suggestion is better than a wrong one: what is suggested are keys and options that exist, with values that
their types accept; where two names are equally near, both are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mlscale.config.checks.key_owners import BUILDS_SEVERAL
from mlscale.config.checks.target_nodes import join_path
from mlscale.config.checks.templates import Advice, Names, fill_template
from mlscale.config.suggestions import not_yet
from mlscale.config.suggestions.foreign_names import Alias, count_devices, load_foreign_names
from mlscale.config.suggestions.name_distance import compute_distance, fold_name
from mlscale.config.suggestions.near_keys import (
    KeyCandidate,
    choose_best,
    extract_key,
    find_same_key,
    format_with_value,
    generate_candidates,
    is_documented,
)
from mlscale.config.suggestions.near_nodes import correct_first_part, find_node_key
from mlscale.config.suggestions.suggest import find_nearest, format_hydra_value

_FOREIGN = 0.4  # a typo of a name from elsewhere
_FILLERS = frozenset({"", "n", "nb", "nr", "num", "no", "number", "of", "the", "value", "param"})


def suggest_key(path: str, value: object, names: Names) -> Advice | None:
    """Return the override to type instead of the unknown `path`: the same key spelled right, a foreign name's meaning,
    the same key elsewhere, or the nearest one; None if none is near.
    """
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
    if whole is not None and (advice := render_alias(whole, path, value, names)):
        return advice
    if named := _find_named_group(path, names):
        return render_alias(named, path, value, names)
    alias = load_foreign_names().find_alias(path)
    meant = render_alias(alias, path, value, names) if alias is not None else None
    if sibling := _find_sibling(path, value, names):
        agrees = meant is not None and alias is not None and _keeps_value(alias, meant, value)
        return _join_alternatives(sibling, here or (meant if agrees else None))
    same = find_same_key(path, value, names, anywhere=True)
    if here is not None:  # a key of another option: unless the foreign name means another one of the same group
        of_group = (
            meant is not None and not _is_refused(alias, meant) and _extract_group(meant.fix) == _extract_group(path)
        )
        return meant if of_group else here
    if alias is not None and meant is not None and not _is_preferred(same, meant, alias, names):
        return meant
    if option := _suggest_misspelt_group(path, value, names.groups):
        return Advice(option)
    lacking = _explain_lacking(alias, path, names) if alias is not None else None
    return same or meant or lacking or _explain_refused(path) or _find_nearest_key(path, value, names)


def _suggest_in_group(path: str, value: object, names: Names, *, typed: str) -> Advice | None:
    """Return the advice for a key whose first part was corrected; of a group alone, for the empty value of one."""
    if "." not in path:
        options = names.groups.get(path, ())
        choice = "none" if "none" in options else f"<{'|'.join(options)}>"
        return Advice(f"{path}={choice}") if value == {} and options else None
    if path in names.paths:
        return Advice(format_with_value(path, value, names))
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
        if front == head and near and "<" not in (fix := format_with_value(item, value, names)):
            candidates.append(KeyCandidate(cost, fix))
    return choose_best(candidates)


def _keeps_value(alias: Alias, meant: Advice, value: object) -> bool:
    """Return whether a foreign name's meaning holds what was typed: `device=4` as `accelerator=gpu` loses the count."""
    if "<" in meant.fix or _is_refused(alias, meant):
        return False
    return alias.fix_of(value) is not None or format_hydra_value(value) in meant.fix


def _join_alternatives(sibling: Advice, other: Advice | None) -> Advice:
    """Return the key next to the typed one, and the other meaning as an alternative where it is about another key."""
    if other is None or "<" in other.fix:
        return sibling
    if extract_key(other.fix) == extract_key(sibling.fix):
        return other
    return Advice(f"{sibling.fix} or {other.fix}", "several names are equally near")


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
        chosen = names.chosen.get(key.partition(".")[0])
        if chosen is not None and key not in names.paths:
            setting = key.rpartition(".")[2].replace("_", " ")
            return Advice(f"leave {path} out", f"{chosen} has no {setting}")
    return None


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
    return key != extract_key(meant.fix) and key in names.paths and is_documented(key)


def render_alias(alias: Alias, path: str, value: object, names: Names) -> Advice | None:
    """Return the meaning of `alias` and the value in this config; None if nothing suits."""
    why = alias.why_of(value)
    if (fix := alias.fix_of(value)) is not None:
        return Advice(fix or f"leave {path} out", why)
    if alias.group and (fix := find_group_option(alias.group, value, names)):
        return Advice(fix, why)
    value = _adapt_value(alias, value, names)
    # First a template that takes the value as typed; a placeholder only where none does.
    for exactly in (True, False):
        for template in alias.to:
            if fix := fill_template(template, value, names, exactly=exactly):
                return Advice(fix, why)
    if alias.unsupported:
        return Advice(f"leave {path} out", f"not supported: {alias.unsupported}")
    options = names.groups.get(alias.group, ())
    if options:
        return Advice(f"{alias.group}=<{'|'.join(options)}>", why)
    return None


def find_group_option(group: str, value: object, names: Names) -> str:
    """Return the option of a group that a value names, here or in other programs; "" for none."""
    options = names.groups.get(group, ())
    alias = load_foreign_names().options.get(group, Alias())
    own = isinstance(value, str) and any(fold_name(option) == fold_name(value) for option in options)
    if not own and (fix := alias.fix_of(value)) is not None:
        return fix
    if isinstance(value, list) and group in BUILDS_SEVERAL:
        return _of_several(group, value, names)
    if not isinstance(value, str):
        return ""
    if not_yet.find_feature_of_option(group, value):
        return ""
    if option := find_nearest(value, options):
        # Callbacks are added to the usual ones; of every other group one option takes the place of another.
        added = group == "callbacks" and option not in ("default", "none")
        return f"{group}=[default,{option}]" if added else f"{group}={option}"
    return next(filter(None, (fill_template(template, value, names) for template in alias.to)), "")


def _of_several(group: str, values: Sequence[object], names: Names) -> str:
    """Return the override for several options of a group, each named here or in other programs: `[wandb,comet]`."""
    fixes = [find_group_option(group, value, names) for value in values]
    options = [fix.removeprefix(f"{group}=") for fix in fixes]
    return f"{group}=[{','.join(options)}]" if options and set(options) <= set(names.groups[group]) else ""


def takes(alias: Alias, value: object, names: Names) -> bool:
    """Return whether the meaning of a foreign name takes the value as it is: `run_name=yolo` is a name of the run."""
    return any("{" in template and fill_template(template, value, names) for template in alias.to)


def _adapt_value(alias: Alias, value: object, names: Names) -> object:
    if alias.convert == "list" and not isinstance(value, list):
        return [value]
    if alias.convert == "global_batch" and names.batches != 1:
        return value * names.batches if isinstance(value, int) else f"<{format_hydra_value(value)} × {names.batches}>"
    if alias.convert in ("count", "indices"):
        count = count_devices(value)
        return None if alias.convert == "indices" and count == value else count
    if alias.convert == "epochs":
        part = value / names.epochs if names.epochs and isinstance(value, int | float) else 0
        return round(part, 6) if 0 < part < 1 and not isinstance(value, bool) else "<part>"
    # `fraction=1` is all of it; here the int would be one batch.
    return 1.0 if alias.convert == "part" and value == 1 and not isinstance(value, bool) else value


def _find_named_group(path: str, names: Names) -> Alias | None:
    """Return the group whose option is named by a key of it: `strategy.name=ddp`."""
    head, _, last = path.rpartition(".")
    return Alias(group=head) if head in names.groups and last in ("name", "type", "kind", "class", "cls") else None


def _suggest_misspelt_group(path: str, value: object, groups: Mapping[str, Sequence[str]]) -> str | None:
    """Return the override for a misspelt group: `optmizer=adamw` → `optimizer=adamw`."""
    group = find_nearest(path, groups) if isinstance(value, str) and "." not in path else None
    option = find_nearest(str(value), groups[group]) if group else None
    return f"{group}={option}" if option else None


def _find_nearest_key(path: str, value: object, names: Names) -> Advice | None:
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
        return Advice(format_with_value(join_path(head, having[0]), value, names)) if len(having) == 1 else None
    return choose_best(ranked)


def _find_same_words(path: str, value: object, names: Names) -> Advice | None:
    """Return the key, here or elsewhere, of the same words in another order: `number_of_epochs`, `epochs_max`."""
    words = _split_into_words(path.rpartition(".")[2])
    if not words:
        return None
    matches = [item for item in names.paths if _split_into_words(item.rpartition(".")[2]) == words]
    if len(matches) == 1:
        return Advice(format_with_value(matches[0], value, names))
    for name, spelled in load_foreign_names().spelled.items():
        if _split_into_words(spelled) == words and (
            advice := render_alias(load_foreign_names().keys[name], path, value, names)
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
        advice = render_alias(alias, path, value, names) if cost <= limit else None
        if advice and "<" not in advice.fix:
            yield KeyCandidate(cost + _FOREIGN, advice.fix)
