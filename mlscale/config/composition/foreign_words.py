"""The override that is meant by a key and a value of another command line: `--gpus 2`, `epochs 3`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mlscale.config.composition.request import Request
from mlscale.config.names import not_yet
from mlscale.config.names.foreign_names import load_foreign_names
from mlscale.config.names.suggest import name_recipe
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.key_owners import OWNED
from mlscale.config.schema.roots import COMMAND_BASES, Roots
from mlscale.config.schema.values import meant_here
from mlscale.config.suggestions.alias_meanings import find_group_option, render_alias, takes
from mlscale.config.suggestions.completed_advice import join_reasons
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.near_keys import advise_value
from mlscale.config.suggestions.templates import get_default_names, parse_yaml_word, settle_settings
from mlscale.config.suggestions.unknown_keys import suggest_key
from mlscale.errors import MLScaleError

NO_ADVICE = Advice("")
_SELECTION = re.compile(r"\+{0,2}[A-Za-z][\w./]*=[^,]+$|\+{0,2}\w+=\[.*\]$")
_COUNTED = (
    "trainer.max_epochs", "trainer.max_steps", "trainer.devices", "trainer.accumulate_grad_batches", "data.batch_size",
)  # fmt: skip
"""Keys that the fixes of other words count with."""


def is_foreign(word: str) -> bool:
    """Return whether another program has an option of this name."""
    return load_foreign_names().find_alias(word) is not None


def suggest_setting(
    command: str,
    key: str,
    value: str,
    roots: Roots,
    words: Sequence[str],
    build_request: Callable[[Sequence[str]], Request],
) -> Advice:
    """Return the override to type, and why it differs; an empty fix where none is certain.

    Args:
        value: "" where a flag was typed alone.
        words: the whole command line, whose recipe and options decide which keys exist.
        build_request: brings overrides into Hydra's form.
    """
    groups = roots.groups
    # First: a feature that does not exist must not be answered with the nearest key that does.
    if feature := not_yet.find_feature_of_key(key):
        error = feature.create_error(key, "")
        return Advice(error.fix, error.why)
    if key in groups:
        return Advice(_suggest_option(key, value, groups))
    names = _collect_names(command, words, roots, build_request)
    if COMMAND_BASES[command] == "run" and (owned := _suggest_owned(key, parse_yaml_word(value or "true"), names)):
        return owned
    read = parse_yaml_word(value or "true")
    alias = load_foreign_names().find_alias(key)
    if alias is not None and (feature := not_yet.of_value(read, alias.group)) and not takes(alias, read, names):
        error = feature.create_error(key, "")
        return Advice(error.fix, error.why)
    if alias is not None and alias.first and key in names.paths and not advise_value(key, read, names).exact:
        return render_alias(alias, key, read, names) or NO_ADVICE  # `--output out` is no format of the output
    own = get_shipped_fields().get_own_fields(command)
    if key in own and alias is not None:
        # `--resume last.ckpt` of another program: what it means is among the command's own keys.
        advice = render_alias(alias, key, read, replace(names, paths=dict.fromkeys([*names.paths, *own])))
        if advice is not None:
            return advice
    if key in get_shipped_fields().get_command_fields(command):
        return Advice(f"{key}={value or 'true'}")
    if key in names.paths:
        advice = advise_value(key, read, names)
        elsewhere = None if advice.exact else meant_here(key, read)
        return Advice(*elsewhere) if elsewhere else advice
    if not value and not is_foreign(key):
        return NO_ADVICE  # a flag without a value is not a typo of a key that needs one
    advice = suggest_key(key, read, names) or NO_ADVICE
    return replace(advice, fix=name_recipe(advice.fix, words))


def suggest_sweep(suggest_value: Callable[[str], Advice], key: str, value: str) -> str:
    """Return the sweep over several values of the key that is meant: `lr=0.1,0.01`; "" where no single key is.

    Args:
        suggest_value: returns the override that is meant by a single value.
    """
    fixes = [suggest_value(item.strip()).fix for item in value.split(",")]
    parts = [fix.partition("=") for fix in fixes]
    meant = {name for name, _, _ in parts}
    # As they were typed: of `1,000` the items are 1 and 0.
    same = [item for _, _, item in parts] == [item.strip() for item in value.split(",")]
    if not same or len(meant) != 1 or meant == {key}:
        return ""
    return f"-m {meant.pop()}={value.replace(' ', '')}, which runs one job for each"


def _collect_names(
    command: str, words: Sequence[str], roots: Roots, build_request: Callable[[Sequence[str]], Request]
) -> Names:
    """Return the keys of the config that the valid words of a command line compose; the default ones where they compose
    none.
    """
    from mlscale.config.checks.checked_config import collect_names
    from mlscale.config.composition.compose import compose_config

    valid = [word for word in words if _SELECTION.match(word) and _get_key(word) in (*roots.groups, *_COUNTED)]
    if not valid or COMMAND_BASES[command] != "run":
        return get_default_names(roots.groups)
    typed = {key: parse_yaml_word(word.partition("=")[2]) for word in valid if (key := _get_key(word)) in _COUNTED}
    try:
        names = collect_names(compose_config(build_request(valid)), groups=roots.groups, command=command)
        return settle_settings(names, typed)
    except MLScaleError:  # reported when it is composed without the word that is wrong here
        return get_default_names(roots.groups)


def _get_key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def _suggest_owned(key: str, value: object, names: Names) -> Advice | None:
    """Return the setting that owns what a key of Lightning sets: `trainer.logger=false` is refused, too."""
    owner = OWNED.get(key)
    if owner is None:
        return None
    if feature := not_yet.of_value(value, owner.alias.group):
        error = feature.create_error(key, "")
        return Advice(error.fix, error.why)
    meant = render_alias(owner.alias, key, value, names) or Advice(f"leave {key} out")
    return replace(meant, why=join_reasons(owner.why, meant.why))


def _suggest_option(group: str, value: str, groups: Mapping[str, Sequence[str]]) -> str:
    options = groups[group]
    if value in options:
        return f"{group}={value}"
    return find_group_option(group, value, get_default_names(groups)) or f"{group}=<{'|'.join(options)}>"
