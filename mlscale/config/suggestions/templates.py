"""The overrides of a template that suit a config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod

import yaml

from mlscale.config.names.suggest import format_hydra_value, format_override
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.job_facts import create_facts
from mlscale.config.schema.roots import get_shipped_folder
from mlscale.config.schema.target_nodes import Node
from mlscale.config.schema.value_types import Type
from mlscale.config.schema.values import convert_value
from mlscale.config.signatures.signatures import Unknown
from mlscale.config.suggestions.config_names import Names
from mlscale.config.suggestions.value_forms import compute_form, is_form

# What a model or a task is built from, which the data decides.
_FACTS = frozenset(
    f"${{derived.{name}}}"
    for name in ("num_classes", "channels", "height", "width", "features", "length", "vocab_size", "targets")
)
# What a file is called that people type where a class is named.
_FILES = ("pt", "pth", "ckpt", "onnx", "safetensors", "bin", "yaml", "yml", "json", "py")


def fill_template(template: str, value: object, names: Names) -> str:
    """Return the overrides of a template with the value in it; "" if this config has no such key, or not for this
    value.
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
            available = set(picked) <= set(names.groups[key])
            if not available or not all(names.facts.fits(key, option) for option in picked):
                return ""
            for option in picked:
                # Later words of the template may set keys that only this option has.
                chosen |= get_option_types(key, option)
            words.append(word)
            continue
        if key.startswith("~"):
            words.append(word)
            continue
        filled = _fill_value(right, value, names)
        if filled is None or (key.endswith("_target_") and right == "{path}" and not _is_class(str(value))):
            return ""
        node = key.rpartition(".")[0]
        if key.endswith("._target_"):
            built[node] = Node(node, {"_target_": filled.value}, get_shipped_fields())
            # timm is optional; and a class that changes images is of no use for other data.
            is_absent = "{" not in right and not _is_there(built[node])
            if is_absent or not (node != "augment" or names.facts.fits(node, "flip")):
                return ""
        # A dictionary around an object that the template builds (Lightning's lr_scheduler dictionary) has keys of its
        # own: `scheduler.interval=epoch` next to `scheduler.scheduler._target_=…`.
        elif not any(item.startswith(f"{node}.") for item in built):
            types = chosen[key] if key in chosen else names.types(key) if key in names.paths else None
            types = built[node].get_types(key.removeprefix(f"{node}.")) if node in built else types
            fact = key not in chosen and is_fact_of_data(key, names)
            if types is None or fact or not names.facts.fits_key(key):
                return ""
            kinds = types if isinstance(types, Sequence) else ()
            fits, form = convert_value(filled.value, kinds, key) if kinds else (True, filled.value)
            if not fits:
                return ""
            filled = _Filled(form)
        words.append(format_override(key, filled.value))
    return " ".join(words)


def _is_there(node: Node) -> bool:
    """Return whether the class of an object is installed, as far as that is known for certain."""
    return not (isinstance(node.signature, Unknown) and node.signature.missing)


@dataclass(frozen=True)
class _Filled:
    """The right side of an override."""

    value: object = None


def is_fact_of_data(path: str, names: Names) -> bool:
    """Return whether the data decides the value of a key: `model.num_classes` of a built-in model."""
    value = names.values(path)
    return isinstance(value, str) and value in _FACTS


def _fill_value(right: str, value: object, names: Names) -> _Filled | None:
    """Return the value that a template's right side stands for; None where the value is not of its kind."""
    if right == "{value}":
        return _Filled(value)
    if is_form(form := right.strip("{}")):
        computed = compute_form(form, value, names)
        return None if computed is None else _Filled(computed)
    if right == "{run}":
        return _Filled(value) if _is_run(value) else None
    if right in ("{name}", "{path}"):
        dotted = isinstance(value, str) and bool(re.fullmatch(r"[\w./~-]*[./][\w./~-]*", value))
        plain = isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z][\w-]*", value))
        return _Filled(value) if (plain if right == "{name}" else dotted) else None
    if "{value}" in right:
        right = right.replace("{value}", format_hydra_value(value))
    if right.startswith(("{", "[{")):  # Hydra's grammar has no space after a colon, YAML's needs one
        right = re.sub(r"(?<=[{,])(\w+):", r"\1: ", right)
    return _Filled(yaml.safe_load(right))


def _is_run(value: object) -> bool:
    """Return whether a value names a run for certain: the newest one, or an id with a digit in it."""
    if value in ("last", "auto"):
        return True
    return isinstance(value, str) and bool(re.fullmatch(r"(?=.*\d)[0-9a-z]{12}", value))


def _is_class(path: str) -> bool:
    """Return whether a text may name a class: `torch.nn.Linear`, and not the file `yolov8n.pt`."""
    return bool(re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", path)) and path.rpartition(".")[2] not in _FILES


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


def settle_settings(names: Names, settings: Mapping[str, object]) -> Names:
    """Return the same names as if these settings were typed."""

    def get_value(path: str) -> object:
        return settings[path] if path in settings else names.values(path)

    # The counts follow from the settings, and would be those of the config before them.
    epochs = get_value("trainer.max_epochs")
    return replace(
        names,
        batches=count_batches(get_value),
        epochs=epochs if isinstance(epochs, int) and epochs > 0 else None,
        values=get_value,
        is_typed=lambda path: path in settings or names.is_typed(path),
    )


def count_batches(get_value: Callable[[str], object]) -> int:
    """Return the passes of one device that are one optimizer step: devices × accumulation."""
    counts = [get_value(f"trainer.{key}") for key in ("devices", "accumulate_grad_batches")]
    return prod(count for count in counts if isinstance(count, int) and count > 0)


def get_default_names(groups: Mapping[str, Sequence[str]]) -> Names:
    """Return the keys and options of a run's config as shipped, for words that are checked before one is composed."""
    types: dict[str, Sequence[Type]] = {
        path: [field.type] if field.type else []
        for path, field in get_shipped_fields().top.items()
        if "derived." not in path
    }
    for group, option in list_default_options():
        types |= get_option_types(group, option)
    defaults = {
        item.path: item.default
        for group, name in (("base", "run"), *list_default_options())
        for item in get_shipped_fields().get_option_fields(group, name).values()
    }
    options = {group: option for group, name in list_default_options() for option in [name] if group != "callbacks"}
    return Names(
        types, groups, types=lambda path: types.get(path, ()), facts=create_facts(options), values=defaults.get
    )


@cache
def list_default_options() -> tuple[tuple[str, str], ...]:
    """Return the options of a run where nothing is chosen, each with its group."""
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
