"""The keys and options of a config, and the overrides of a template that suit it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import yaml

from mlscale.config.checks.target_nodes import Node
from mlscale.config.checks.value_types import Type
from mlscale.config.checks.values import convert_value
from mlscale.config.composition.roots import get_shipped_folder
from mlscale.config.documented_fields import get_shipped_fields
from mlscale.config.suggestions.suggest import format_hydra_value, format_override

# What a file is called that people type where a class is named.
_FILES = ("pt", "pth", "ckpt", "onnx", "safetensors", "bin", "yaml", "yml", "json", "py")


@dataclass(frozen=True)
class Advice:
    """The override to type, and the reason why it differs from what was typed; either may be empty."""

    fix: str
    why: str = ""


@dataclass(frozen=True)
class Names:
    """The keys and options that may be set in this config.

    Attributes:
        paths: full key paths.
        groups: the groups with their options.
        batches: processes × accumulation.
        types: the types that the value of a key must have.
        nodes: the paths of groups and of objects inside them, in front of keys.
        chosen: of data and task, what another choice than the default is: `task=language`, or a class.
        epochs: the length of the run, where it is known.
    """

    paths: Collection[str]
    groups: Mapping[str, Sequence[str]]
    batches: int = 1
    types: Callable[[str], Sequence[Type]] = lambda path: ()
    nodes: Collection[str] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)
    epochs: int | None = None


def fill_template(template: str, value: object, names: Names, *, exactly: bool = True) -> str:
    """Return the overrides of a template with the value in it; "" if this config has no such key, or not for this
    value.

    Args:
        exactly: only with a value that fits; otherwise with a placeholder where it does not.
    """
    # A whole command, such as `mlscale export`: nothing to fill in.
    if template.startswith("mlscale "):
        return template
    chosen: dict[str, Type | Sequence[Type] | None] = {}
    built: dict[str, Node] = {}
    words = []
    for word in template.split(" "):
        key, _, right = word.partition("=")
        if key in names.groups:
            picked = right.strip("[]").split(",")
            # An option that this installation does not have makes the whole template unusable.
            if not set(picked) <= set(names.groups[key]) or not can_choose(key, right, names):
                return ""
            for option in picked:
                # Later words of the template may set keys that only this option has.
                chosen |= get_option_types(key, option)
            words.append(word)
            continue
        if key.startswith("~"):
            words.append(word)
            continue
        filled = _fill_value(right, value)
        if filled is None or (key.endswith("_target_") and right == "{path}" and not _is_class(str(value))):
            return ""
        node = key.rpartition(".")[0]
        if key.endswith("._target_"):
            built[node] = Node(node, {"_target_": filled.value}, get_shipped_fields())
        # A dictionary around an object that the template builds (Lightning's lr_scheduler dictionary) has keys of its
        # own: `scheduler.interval=epoch` next to `scheduler.scheduler._target_=…`.
        elif not any(item.startswith(f"{node}.") for item in built):
            types = chosen[key] if key in chosen else names.types(key) if key in names.paths else None
            types = built[node].get_types(key.removeprefix(f"{node}.")) if node in built else types
            if types is None:
                return ""
            filled = _convert_to_types(filled, types, exactly=exactly)
            if filled is None:
                return ""
        words.append(filled.format_word(key))
    return " ".join(words)


@dataclass(frozen=True)
class _Filled:
    """The right side of an override: a value, or the text of a placeholder."""

    value: object = None
    text: str = ""

    def format_word(self, key: str) -> str:
        return f"{key}={self.text}" if self.text else format_override(key, self.value)


def _fill_value(right: str, value: object) -> _Filled | None:
    """Return the value that a template's right side stands for; None where the value is not of its kind."""
    if right == "{value}":
        return _Filled(text=value) if isinstance(value, str) and value.startswith("<") else _Filled(value)
    if right == "{run}":
        return _Filled(value) if _is_run(value) else None
    if right in ("{name}", "{path}"):
        dotted = isinstance(value, str) and bool(re.fullmatch(r"[\w./~-]*[./][\w./~-]*", value))
        plain = isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z][\w-]*", value))
        return _Filled(value) if (plain if right == "{name}" else dotted) else None
    if "<" in right:
        return _Filled(text=right)
    if "{value}" in right:
        right = right.replace("{value}", format_hydra_value(value))
    return _Filled(yaml.safe_load(re.sub(r"(?<=[{,]\w{5}):", ": ", right) if right.startswith("{") else right))


def _is_run(value: object) -> bool:
    """Return whether a value names a run for certain: the newest one, or an id with a digit in it."""
    if value in ("last", "auto"):
        return True
    return isinstance(value, str) and bool(re.fullmatch(r"(?=.*\d)[0-9a-z]{12}", value))


def _is_class(path: str) -> bool:
    """Return whether a text may name a class: `torch.nn.Linear`, and not the file `yolov8n.pt`."""
    return bool(re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", path)) and path.rpartition(".")[2] not in _FILES


def _convert_to_types(filled: _Filled, types: object, *, exactly: bool) -> _Filled | None:
    if filled.text or not isinstance(types, Sequence):
        return filled
    fits, form = convert_value(filled.value, types)
    if fits:
        return _Filled(form)
    return None if exactly else _Filled(text=f"<{types[-1].text}>")


@cache
def get_option_types(group: str, name: str) -> dict[str, Sequence[Type]]:
    """Return the keys that a shipped option brings, and the types of their values."""
    option = next((item for item in get_shipped_fields().list_group_options(group) if item.name == name), None)
    if option is None:
        return {}
    if option.target is None:
        return {item.path: [item.type] if item.type else [] for item in option.fields}
    node = Node(option.package, {"_target_": option.target}, get_shipped_fields())
    return {path: node.get_types(path.removeprefix(f"{node.path}.")) for path in node.paths}


def can_choose(group: str, option: str, names: Names) -> bool:
    """Return whether an option may be suggested in place of the chosen one: another task, or data of another kind, is
    another job than the one that was chosen.
    """
    if group not in names.chosen:
        return True
    return group != "task" and _find_kind(get_option_types(group, option)) == _find_kind(names.paths)


def _find_kind(paths: Collection[str]) -> str:
    """Return the kind of data that has these keys."""
    return "images" if "data.image_size" in paths else "texts" if "data.length" in paths else "tables"


def find_chosen(tree: Mapping[str, object]) -> dict[str, str]:
    """Return what is chosen for data and task in a composed config, where it is not the default."""
    chosen: dict[str, str] = {}
    defaults = dict(_list_default_options())
    for group in ("data", "task"):
        node = tree.get(group)
        target = node.get("_target_") if isinstance(node, dict) else None
        known = [item for item in get_shipped_fields().list_group_options(group) if item.target == target]
        if target is not None and defaults.get(group) not in [item.name for item in known]:
            chosen[group] = f"{group}={known[0].name}" if known else str(target)
    return chosen


def get_default_names(groups: Mapping[str, Sequence[str]]) -> Names:
    """Return the keys and options of a run's config as shipped, for words that are checked before one is composed."""
    types: dict[str, Sequence[Type]] = {
        path: [field.type] if field.type else []
        for path, field in get_shipped_fields().top.items()
        if "derived." not in path
    }
    for group, option in _list_default_options():
        types |= get_option_types(group, option)
    return Names(types, groups, types=lambda path: types.get(path, ()))


@cache
def _list_default_options() -> tuple[tuple[str, str], ...]:
    base = yaml.safe_load((get_shipped_folder("conf") / "base" / "run.yaml").read_text(encoding="utf-8"))
    chosen = [
        (key.strip("/"), name) for item in base["defaults"] if isinstance(item, dict) for key, name in item.items()
    ]
    # The default callbacks are options that another option's defaults list selects.
    usual = yaml.safe_load((get_shipped_folder("conf") / "callbacks" / "default.yaml").read_text(encoding="utf-8"))
    return (*chosen, *(("callbacks", name) for name in usual["defaults"]))


def parse_yaml_word(text: str) -> object:
    """Return the value that a word of the command line is read as."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
