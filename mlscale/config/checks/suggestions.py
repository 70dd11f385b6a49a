"""The override to type in place of a key or an option that does not exist.

What is meant is the first of: the same key spelled otherwise, a name of other programs (`foreign_names.yaml`), a key a
few edits away, the same key in another group, a key of another option. What is suggested exists and takes the value as
it was typed; what is near, and can't be typed, is a reason alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
    head = path.rpartition(".")[0]
    group = head.partition(".")[0] if head in names.nodes and "." in head else ""
    for advices in _iterate_meanings(path, value, names):
        if group in BUILDS_SEVERAL:  # `target.triton.batch_size` is not that of the data
            advices = [item for item in advices if not item.fix or item.fix.strip("'\"").startswith(group)]
        fixes = list(dict.fromkeys(advice.fix for advice in advices if advice.fix))
        if len(fixes) == 1:
            return next(advice for advice in advices if advice.fix)
        if fixes:
            return Advice("\n".join(fixes), "several names are equally near") if len(fixes) <= _FEW else None
        if advices:
            return advices[0]
    return None


def _iterate_meanings(path: str, value: object, names: Names) -> Iterator[Sequence[Advice]]:
    """Yield what a key may mean, the likeliest first; what is yielded together is equally likely."""
    head, _, last = path.rpartition(".")
    others = {field.path for option in _iterate_options(names) for field in option.fields} - set(names.paths)

    def advise(near: Iterable[str], *, exact: bool = False) -> list[Advice]:
        """Return the advice for keys: a value that does not fit rules one of another group out, and a typo alone does
        not choose an option.
        """
        keys, advices = list(near), []
        for name in [name for name in keys if name not in others] or keys:
            advice = _advise_other_option(name, value, names) if name in others else advise_value(name, value, names)
            advice = replace(advice, fix="") if name in others and not (head or exact) else advice
            if advice.fix or name in others or name.rpartition(".")[0] == head:
                advices.append(advice)
        return advices

    distance, near = _select_nearest({name: _measure(path, name) for name in (*names.paths, *others)})
    typos, foreign = advise(near), list(_iterate_foreign(path, value, names))
    in_group = [advice for advice in foreign if head and advice.fix.startswith(f"{head}.")]
    fixes = [advice for advice in typos if advice.fix]
    if distance == 0:
        yield fixes or in_group or typos  # a key of another option is a reason alone
    same = {name for name in (*names.paths, *others) if fold_name(_get_last(name)) == fold_name(last)}
    if head and last == "name":  # that of a model is not that of a run
        same = {name for name in same if name.startswith(f"{head.partition('.')[0]}.")}
    here = [name for name in names.paths if name in same]
    # An argument that no file names comes last, and after a meaning of the table.
    same_keys = advise([name for name in here if name in _read_descriptions()] or ([] if is_listed(path) else here))
    # `strategy.name=ddp`, `optmizer=adamw`
    group = correct_front(head, names) if last in ("name", "type") else find_nearest(path, names.groups)
    option = suggest_option(group, value, names) if group else ""
    options = [Advice(option)] if option else []
    is_meant = bool(find_value_meaning(path, value))
    is_whole = not head or is_listed(path) or is_meant
    if is_listed(path) and foreign and not any(advice.fix for advice in foreign):  # a sentence is about this very name
        yield foreign
    direct = [] if head else [advice for advice in same_keys if advice.fix.partition("=")[0].count(".") == 1]
    yield direct or [*(() if head or is_meant else same_keys), *(foreign if is_whole else ()), *options]
    yield [*fixes, *in_group] if near else []
    yield [*typos, *same_keys, *foreign]
    yield advise(same - {*here}, exact=True)
    if not head:
        # Other programs have no names for what is for a scheduler.
        own = [name for name in names.paths if not name.startswith("launch.")]
        yield advise(_select_nearest({name: _measure_last(last, _get_last(name)) for name in own})[1])


def _select_nearest(distances: Mapping[str, int | None]) -> tuple[int | None, list[str]]:
    """Return the least distance, and the names that have it."""
    least = min((distance for distance in distances.values() if distance is not None), default=None)
    return least, [name for name, distance in distances.items() if distance is not None and distance == least]


def _measure(path: str, name: str) -> int | None:
    """Return how many edits a typed key is from one that exists; None for too many."""
    head, _, last = path.rpartition(".")
    front, _, other = name.rpartition(".")
    is_there = fold_name(head) == fold_name(front) or bool(head and f".{head}." in f".{front}.")  # `checkpoint.keep`
    near = _measure_last(last, other, own=bool(head)) if is_there else None
    # Compared as a whole, too: a dot that is missing or in the wrong place (`trainermax_epochs`) changes both parts.
    limit = 2 if len(fold_name(last if is_there else path)) > 5 else 0
    edits = compute_distance(fold_name(path), fold_name(name), limit)
    return min(edits, limit + 1 if near is None else near) if near is not None or edits <= limit else None


def _measure_last(typed: str, name: str, *, own: bool = False) -> int | None:
    """Return how many edits one name is from another; None for too many: `lrf` and `lrd` are other settings than lr.

    Each word is near the one in its place: `ema_momentum` is not a typo of `max_momentum`; a name with a word more,
    such as `bn_momentum`, is another.

    Args:
        own: the group was typed: then a short name may be a typo, too.
    """
    words, others = (re.split("[_-]", part.lower()) for part in (typed, name))
    if fold_name(typed) == fold_name(name):
        return 0
    if len(words) == len(others):
        near = all(compute_distance(*pair) <= get_edit_limit(pair[0]) for pair in zip(words, others, strict=True))
    else:
        near = not is_extension(typed, name)
    edits, length = compute_distance(fold_name(typed), fold_name(name)), len(fold_name(typed))
    limit = 1 + (length > 3) + (length > 7) if own else get_edit_limit(typed) * (length > 3)
    return edits if near and edits <= limit else None


def _get_last(path: str) -> str:
    return path.rpartition(".")[2]


@cache
def _read_descriptions() -> Mapping[str, str]:
    """Return the comment of each documented key."""
    return {field.path: field.text for option in get_shipped_fields().options for field in option.fields}


def _iterate_foreign(path: str, value: object, names: Names) -> Iterator[Advice]:
    """Yield the advice for what a name of other programs means."""
    head = path.rpartition(".")[0]
    meant = find_value_meaning(path, value) or find_value_meaning(_get_last(path), value)
    for meaning in [meant] if meant else find_meanings(path):
        own = join_path(head, _get_last(meaning))  # `task.lr` for `task.learning_rate` of a user's own class
        meaning = own if head and own in names.paths else meaning
        if (advice := advise_meaning(meaning, path, value, names, whole=bool(meant))) is not None:
            yield advice


def advise_meaning(meaning: str, path: str, value: object, names: Names, *, whole: bool = False) -> Advice | None:
    """Return the advice for what a name of other programs means; None where this config has no such key.

    Args:
        whole: it is the meaning of the key with its value.
    """
    if is_sentence(meaning):
        return Advice("", meaning)
    if "=" in meaning or meaning.startswith("~"):
        group, _, option = meaning.partition("=")
        if group in BUILDS_SEVERAL and option.partition(" ")[0] != "none":
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
    # No layer of a dense model has the gradients that SparseAdam takes.
    same = [f"{library}.{item}" for item in names if fold_name(item) == fold_name(name) != "sparseadam"]
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
    distance, near = _select_nearest({key: compute_distance(last, key, 2) for key in NODE_KEYS})
    front, key = correct_front(head, names), near[0]
    is_one = last.startswith("_") or last.endswith("_")
    if not front or not is_one or distance is None or distance > 2 or (front, key) == (head, last):
        return None
    return Advice(format_override(join_path(front, key), value))


def correct_front(head: str, names: Names) -> str:
    """Return the path of the existing node or group that a typed front part is, or is a typo of; "" for none."""
    fronts = {group for group in names.groups if "/" not in group} | set(names.nodes)
    fronts |= {path.rpartition(".")[0] for path in names.paths} - {""}
    alike = sorted(front for front in fronts if front.count(".") == head.count("."))
    return head if head in fronts else find_nearest(head, alike) or ""
