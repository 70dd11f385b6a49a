"""The override that is meant by a key and a value of another command line: `--gpus 2`, `epochs 3`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlscale.config.checks.templates import Advice, get_default_names, parse_yaml_word
from mlscale.config.checks.values import meant_here
from mlscale.config.documented_fields import get_shipped_fields
from mlscale.config.suggestions import not_yet
from mlscale.config.suggestions.foreign_names import load_foreign_names
from mlscale.config.suggestions.near_keys import format_with_value
from mlscale.config.suggestions.unknown_keys import find_group_option, render_alias, suggest_key, takes

NO_ADVICE = Advice("")


def is_foreign(word: str) -> bool:
    """Return whether another program has an option of this name."""
    return load_foreign_names().find_alias(word) is not None


def suggest_setting(command: str, key: str, value: str, groups: Mapping[str, Sequence[str]]) -> Advice:
    """Return the override to type, and why it differs; an empty fix where none is certain.

    Args:
        value: "" where a flag was typed alone.
    """
    # First: a feature that does not exist must not be answered with the nearest key that does.
    if feature := not_yet.find_feature_of_key(key):
        error = feature.create_error(key, "")
        return Advice(error.fix, error.why)
    if key in groups:
        return Advice(_suggest_option(key, value, groups))
    names = get_default_names(groups)
    read = parse_yaml_word(value or "true")
    alias = load_foreign_names().find_alias(key)
    if alias is not None and (feature := not_yet.of_value(read, alias.group)) and not takes(alias, read, names):
        error = feature.create_error(key, "")
        return Advice(error.fix, error.why)
    if alias is not None and alias.first and key in names.paths and "<" in format_with_value(key, read, names):
        return render_alias(alias, key, read, names) or NO_ADVICE  # `--output out` is no format of the output
    if key in get_shipped_fields().get_command_fields(command):
        return Advice(f"{key}={value or 'true'}")
    if key in names.paths:
        fix = format_with_value(key, read, names)
        elsewhere = meant_here(key, read) if "<" in fix else None
        return Advice(*elsewhere) if elsewhere else Advice(fix)
    if not value and not is_foreign(key):
        return NO_ADVICE  # a flag without a value is not a typo of a key that needs one
    return suggest_key(key, read, names) or NO_ADVICE


def _suggest_option(group: str, value: str, groups: Mapping[str, Sequence[str]]) -> str:
    options = groups[group]
    if value in options:
        return f"{group}={value}"
    return find_group_option(group, value, get_default_names(groups)) or f"{group}=<{'|'.join(options)}>"
