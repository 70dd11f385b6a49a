"""The override to type in place of a key or an option that does not exist.

What is meant is, by how far it is: the same key spelled otherwise, a name of other programs (`foreign_names.yaml`), a
key a few edits away, the same key in another group, a key of another option. What is suggested exists and takes the
value as it was typed; what is near, and can't be typed, is a reason alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import yaml

from mlscale.config.names.foreign_names import find_meanings, find_value_meaning, is_listed, is_sentence
from mlscale.config.names.suggest import (
    compute_distance,
    find_nearest,
    fold_name,
    format_override,
    get_edit_limit,
    is_extension,
)  # fmt: skip
from mlscale.config.schema.documented_fields import MISSING, Option, get_shipped_fields
from mlscale.config.schema.key_owners import BUILDS_SEVERAL, NODE_KEYS
from mlscale.config.schema.roots import get_shipped_folder
from mlscale.config.schema.target_nodes import Node, join_path
from mlscale.config.schema.value_types import Type
from mlscale.config.schema.values import convert_value
from mlscale.config.signatures import source_names
from mlscale.config.signatures.signatures import Signature, read_signature

_MISSING_PREFIX, _NESTED = 0.5, 0.3  # `lr` for optimizer.lr; `monitor` for callbacks.checkpoint.monitor
_PART_OF_PREFIX = 0.3  # `checkpoint.keep` for callbacks.checkpoint.keep
_FOREIGN = 0.9  # a name of other programs
_BELOW_GROUP = 0.4  # such a name below a group that it says nothing of
_ELSEWHERE = 1.5  # the same key in another group than the one that was typed
_MISSPELT_GROUP = 1.5  # where what was typed is not a group
_OTHER_OPTION = 0.85  # a key that another option of its group has
_WRONG_VALUE = 0.7  # a key that does not take the value
_UNDOCUMENTED = 0.4  # an argument that no option's file names
_FAR = 9.0  # another front part
_MARGIN = 0.4  # by which the best must be better than the next, or both are listed
_FEW = 3  # candidates that are listed
_LIBRARIES = {"optimizer": "torch.optim", "model": "torchvision.models"}
"""The library whose classes a group builds, too."""


@dataclass(frozen=True)
class Advice:
    """The overrides to type, "" for none, and the reason for them, or in their place."""

    fix: str
    why: str = ""


@dataclass(frozen=True)
class Names:
    """The keys and options that may be set in a config.

    Attributes:
        paths: full key paths.
        groups: the groups with their options.
        types: the types that the value of a key must have.
        nodes: the paths of groups and of objects inside them, in front of keys.
        entries: of each group of this config the names of what is in it.
    """

    paths: Collection[str]
    groups: Mapping[str, Sequence[str]]
    types: Callable[[str], Sequence[Type]] = lambda path: ()
    nodes: Collection[str] = ()
    entries: Mapping[str, Sequence[str]] | None = None


def suggest_key(path: str, value: object, names: Names) -> Advice | None:
    """Return the override to type instead of the unknown `path`, or a few that are equally near; None for none."""
    if node_key := _find_node_key(path, value, names):
        return node_key
    if len(fold_name(path.rpartition(".")[2])) == 1 and not find_meanings(path):
        return None  # one typo away from every other letter
    ranked = sorted(_iterate_candidates(path, value, names), key=lambda item: item[0])
    near = [advice for cost, advice in ranked if cost - ranked[0][0] < _MARGIN]
    fixes = list(dict.fromkeys(advice.fix for advice in near if advice.fix))
    if len(fixes) == 1:
        return next(advice for advice in near if advice.fix)
    if 1 < len(fixes) <= _FEW:
        return Advice("\n".join(fixes), "several names are equally near")
    return near[0] if near and not fixes else None


def _iterate_candidates(path: str, value: object, names: Names) -> Iterator[tuple[float, Advice]]:
    """Yield what a key may mean, with how far that is."""
    head, _, last = path.rpartition(".")
    front = _create_front_cost(head, names)
    for name in names.paths:
        cost = _compute_cost(path, name, front)
        if cost is not None:
            advice = advise_value(name, value, names)
            # A value that does not fit rules a key out, unless its group was typed: then the value is the mistake.
            if advice.fix or front(name.rpartition(".")[0]) == 0:
                yield cost + (0 if advice.fix else _WRONG_VALUE), advice
    meant = find_value_meaning(path, value) or find_value_meaning(last, value)
    for meaning in [meant] if meant else find_meanings(path):
        own = join_path(head, meaning.rpartition(".")[2])  # `task.lr` for `task.learning_rate` of a user's own class
        meaning = own if head and own in names.paths else meaning
        if (foreign := advise_meaning(meaning, path, value, names, whole=bool(meant))) is not None:
            is_whole = meant or not head or is_listed(path)
            below = _BELOW_GROUP if _is_group(head, names) else _MISSPELT_GROUP
            yield _FOREIGN + (0 if is_whole else below), foreign
    # `strategy.name=ddp`, `optmizer=adamw`
    group = correct_front(head, names) if last in ("name", "type") else find_nearest(path, names.groups)
    if group is not None and (fix := suggest_option(group, value, names)):
        yield _FOREIGN, Advice(fix)
    for option in _iterate_options(names):
        for field in option.fields:
            # Keys of this config were candidates above.
            cost = None if field.path in names.paths else _compute_cost(path, field.path, front)
            if cost is not None:
                advice = _advise_other_option(field.path, value, names)
                # A typo alone does not choose an option.
                is_same = head or fold_name(field.path.rpartition(".")[2]) == fold_name(last)
                yield cost + _OTHER_OPTION, advice if is_same else replace(advice, fix="")


def advise_meaning(meaning: str, path: str, value: object, names: Names, *, whole: bool = False) -> Advice | None:
    """Return the advice for what a name of other programs means; None where this config has no such key.

    Args:
        whole: it is the meaning of the key with its value.
    """
    if is_sentence(meaning):
        return Advice("", meaning)
    if "=" in meaning or meaning.startswith("~"):
        group, _, option = meaning.partition("=")
        if group in BUILDS_SEVERAL and option != "none":
            meaning = format_entries(group, option, names)
        is_on = whole or str(value).lower() in ("true", "1", "yes", "on")
        return Advice(meaning if is_on else "", "" if is_on else f"here it is {meaning}")
    if meaning in names.groups:
        if is_sentence(sentence := find_value_meaning(meaning, value)):
            return advise_meaning(sentence, path, value, names)
        fix = suggest_option(meaning, value, names)
        return Advice(fix, "" if fix else f"{meaning} is one of {', '.join(names.groups[meaning])}")
    if meaning in names.paths:
        advice = advise_value(meaning, value, names)
        return replace(advice, why=_read_descriptions().get(meaning, "")) if advice.fix else advice
    is_key = any(field.path == meaning for option in _iterate_options(names) for field in option.fields)
    return _advise_other_option(meaning, value, names) if is_key else None


def advise_value(path: str, value: object, names: Names) -> Advice:
    """Return the override of a key; where it does not take the value, what it takes."""
    types = names.types(path)
    fits, form = convert_value(value, types, path)
    return Advice(format_override(path, form)) if fits else Advice("", f"{path} takes {types[-1].text}")


def _advise_other_option(path: str, value: object, names: Names) -> Advice:
    """Return the advice for a key that another option brings: an override where the option is added to others; where it
    would take the place of what was chosen, that is not what was typed.
    """
    having = [item for item in _iterate_options(names) if any(field.path == path for field in item.fields)]
    group, option = having[0].group, having[0]
    fits, form = convert_value(value, get_option_types(group, option.name).get(path, ()), path)
    if (
        group in BUILDS_SEVERAL
        and fits
        and all(field.default != MISSING or field.path == path for field in option.fields)
    ):
        return Advice(f"{format_entries(group, option.name, names)} {format_override(path, form)}")
    shown = [*(f"{group}={item.name}" for item in having[:_FEW]), *(["…"] if having[_FEW:] else [])]
    return Advice("", f"{path} is a key of {', '.join(shown)}")


def format_entries(group: str, option: str, names: Names) -> str:
    """Return the override that adds an option to what a group of several has: a list takes the place of another."""
    options = names.groups.get(group, ())
    usual = _list_default_entries() if "default" in options and group == "callbacks" else ()
    present = [name for name in (names.entries or {}).get(group, ()) if name in options and name not in usual]
    chosen = dict.fromkeys([*(["default"] if usual else []), *present, option])
    return f"{group}=[{','.join(chosen)}]" if len(chosen) > 1 else f"{group}={option}"


@cache
def _list_default_entries() -> Sequence[str]:
    file = get_shipped_folder("conf") / "callbacks" / "default.yaml"
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8"))["defaults"])


def suggest_option(group: str, value: object, names: Names) -> str:
    """Return the overrides for an option of a group that a value names, here or in other programs; "" for none."""
    options = names.groups.get(group, ())
    if meaning := find_value_meaning(group, value):
        return "" if is_sentence(meaning) else meaning
    if value in (None, False) or str(value).lower() in ("null", "false", "none"):
        return f"{group}=none" if "none" in options else ""
    if isinstance(value, list) and group in BUILDS_SEVERAL:
        known = [find_nearest(str(item), options) for item in value]
        return f"{group}=[{','.join(map(str, known))}]" if known and all(known) else ""
    if not isinstance(value, str):
        return ""
    near = find_nearest(value, options)
    if (near is None or fold_name(near) != fold_name(value)) and (built := _find_library_class(group, value)):
        return f"{group}._target_={built}"
    if near is None or is_extension(value, near):  # `gpt3` is another model than gpt
        return ""
    return format_entries(group, near, names) if group == "callbacks" and near != "none" else f"{group}={near}"


def _find_library_class(group: str, name: str) -> str:
    """Return what a library has of a name, whatever its case: torch.optim.Adam for `adam`; "" for none."""
    library = _LIBRARIES.get(group)
    names = source_names.find_module(library).list_names() if library else ()
    same = [f"{library}.{item}" for item in names if fold_name(item) == fold_name(name)]
    return next((target for target in same if isinstance(read_signature(target), Signature)), "")


def _iterate_options(names: Names) -> Iterator[Option]:
    """Yield the options that may be chosen."""
    for option in get_shipped_fields().options:
        if option.target is not None and option.name in names.groups.get(option.group, ()):
            yield option


@cache
def get_option_types(group: str, name: str) -> Mapping[str, Sequence[Type]]:
    """Return the keys that a shipped option brings, and the types of their values."""
    option = next((item for item in get_shipped_fields().list_group_options(group) if item.name == name), None)
    if option is None:
        return {}
    if option.target is None:
        return {item.path: [item.type] if item.type else [] for item in option.fields}
    node = Node(option.package, {"_target_": option.target}, get_shipped_fields())
    return {path: node.get_types(path.removeprefix(f"{node.path}.")) for path in node.paths}


def _find_node_key(path: str, value: object, names: Names) -> Advice | None:
    """Return Hydra's key of a node that was meant: `data._traget_`, `optimzer._target_`. Compared with its underscores:
    folded, `_target_` is the name of a column.
    """
    head, _, last = path.rpartition(".")
    costs = {key: compute_distance(last, key, 2.0) for key in NODE_KEYS}
    key, front = min(costs, key=lambda item: costs[item]), correct_front(head, names)
    is_one = last.startswith("_") or last.endswith("_")
    if not front or not is_one or costs[key] > 2 or (front, key) == (head, last):
        return None
    return Advice(format_override(join_path(front, key), value))


def correct_front(head: str, names: Names) -> str:
    """Return the path of the existing node or group that a typed front part is, or is a typo of; "" for none."""
    fronts = {group for group in names.groups if "/" not in group} | set(names.nodes)
    fronts |= {path.rpartition(".")[0] for path in names.paths} - {""}
    alike = sorted(front for front in fronts if front.count(".") == head.count("."))
    return head if head in fronts else find_nearest(head, alike) or ""


def _compute_cost(path: str, name: str, front_of: Callable[[str], float]) -> float | None:
    """Return the distance from the typed key: the edits of its last part, and the cost of its front part; None if too
    far.
    """
    head, _, last = path.rpartition(".")
    other_head, _, other = name.rpartition(".")
    front = front_of(other_head)
    typed, other = fold_name(last), fold_name(other)
    costs = []
    if typed == other:
        undocumented = 0 if front == 0 or name in _read_descriptions() else _UNDOCUMENTED
        costs.append((front if front < _FAR else front - _FAR + _ELSEWHERE) + undocumented)
    elif front < _FAR and _may_be_typo(last, name.rpartition(".")[2]):
        limit = _get_typo_limit(typed, same_front=bool(head) and front == 0)
        if (cost := compute_distance(typed, other, limit)) <= limit:
            costs.append(cost + front)
    # Compared as a whole, too: a dot that is missing or in the wrong place (`trainermax_epochs`) changes both parts.
    if (whole := compute_distance(fold_name(path), fold_name(name), 2.0)) <= 2 and len(fold_name(path)) > 5:
        costs.append(whole)
    return min(costs) if costs else None


@cache
def _read_descriptions() -> Mapping[str, str]:
    """Return the comment of each documented key."""
    return {field.path: field.text for option in get_shipped_fields().options for field in option.fields}


def _create_front_cost(typed: str, names: Names) -> Callable[[str], float]:
    """Return a function for the cost to read the typed front part as another one: one that exists is not a typo."""
    exists = _is_group(typed, names)

    @cache
    def get_front_cost(other: str) -> float:
        cost = _compute_front_cost(typed, other)
        # `optimizer.lr` must not be read as a typo of another group with a key `lr`.
        if cost == _FAR and not exists:
            return _FAR + _MISSPELT_GROUP
        return cost if cost < 1 or not exists else _FAR

    return get_front_cost


def _is_group(head: str, names: Names) -> bool:
    return head in names.groups or any(name.startswith(f"{head}.") for name in names.paths)


def _compute_front_cost(typed: str, front: str) -> float:
    """Return the cost to read one front part as another: nothing for the same one, little for a part of it."""
    if fold_name(typed) == fold_name(front):
        return 0.0
    if not typed:
        return _MISSING_PREFIX + _NESTED * ("." in front)
    if front.endswith(f".{typed}") or front.startswith(f"{typed}."):
        return _PART_OF_PREFIX
    # Two edits turn one short group name into another.
    limit = 1.0 if len(typed) < 5 else 2.0
    cost = compute_distance(fold_name(typed), fold_name(front), limit)
    if cost <= limit:
        return cost
    # Of a front part of several names one was misspelt, or it is the only one that was typed, misspelt.
    cost = compute_distance(fold_name(typed.rpartition(".")[2]), fold_name(front.rpartition(".")[2]), limit)
    return cost + _PART_OF_PREFIX if "." in front and cost <= limit else _FAR


def _may_be_typo(typed: str, name: str) -> bool:
    """Return whether each word of a name is near the one in its place: `ema_momentum` is not a typo of `max_momentum`;
    a name with a word more, such as `bn_momentum`, is another.
    """
    words, others = (re.split("[_-]", part.lower()) for part in (typed, name))
    if len(words) == len(others):
        return all(compute_distance(*pair) <= get_edit_limit(pair[0]) for pair in zip(words, others, strict=True))
    return not is_extension(typed, name) and len(fold_name(typed)) > 3


def _get_typo_limit(typed: str, *, same_front: bool) -> float:
    length = len(typed)
    if same_front:
        return 1.0 if length <= 3 else 2.0 if length <= 7 else 3.0
    # Of two or three letters only a swapped or doubled one: `lrf` and `lrd` are other settings than lr.
    return 0.9 if length <= 3 else 1.0 if length <= 7 else 2.0 if length <= 11 else 3.0
