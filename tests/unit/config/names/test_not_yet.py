"""Features that are not supported yet: none of them exists, and what does it meanwhile composes."""

from __future__ import annotations

import re
import shlex

from mlscale.commands import COMMANDS
from mlscale.config.names import not_yet
from mlscale.config.names.suggest import is_override
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.roots import COMMAND_BASES, find_roots
from tests.unit.config.names.composed_names import names, problems


def test_what_exists_is_not_printed_to_be_missing() -> None:
    groups = find_roots().groups
    existing = {
        *COMMANDS,
        *COMMAND_BASES,
        *groups,
        *(f"{group}={option}" for group in groups for option in groups[group]),
    }
    existing |= {option for options in groups.values() for option in options if option != "none"}
    existing |= {
        part for option in get_shipped_fields().options for field in option.fields for part in field.path.split(".")
    }
    existing |= {part for path in names().paths for part in path.split(".")}
    assert {not_yet_name(name) for name in existing} & set(not_yet.load_features()) == set()


def not_yet_name(name: str) -> str:
    return "=".join(re.sub(r"[_\-. ]", "", part.lower()) for part in name.split("="))


def test_what_does_it_meanwhile_composes() -> None:
    for feature in set(not_yet.load_features().values()):
        if is_override(feature.instead):
            assert problems(shlex.split(feature.instead)) == [], feature
