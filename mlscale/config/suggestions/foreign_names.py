"""Names from other programs: the table `foreign_names.yaml`, read when a name is unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mlscale.config.suggestions.name_distance import folded

_FILE = Path(__file__).with_name("foreign_names.yaml")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Alias:
    """The meaning of a foreign name here.

    Attributes:
        to: overrides with `{value}` in them, of which the first that suits the config and the value is suggested.
        values: whole overrides for certain values, "" for 'leave it out'.
        group: a config group whose option the value names.
        convert: how `{value}` is made of what was typed: `list` or `global_batch`.
        why: the difference from the program that the name comes from.
        unsupported: why the setting does not exist, and the alternative.
        entries: of a group that builds several, the option that an entry of this name is.
        first: it goes before a key of the same name.
    """

    to: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    convert: str = ""
    why: str = ""
    unsupported: str = ""
    entries: Mapping[str, str] = field(default_factory=dict)
    first: bool = False


@dataclass(frozen=True)
class Table:
    """The whole table; names are folded: case and separators do not count.

    Attributes:
        keys: the meaning of each foreign name.
        spelled: each folded name as it is written in the table.
        options: by group, what its options are called elsewhere.
        commands: the command here for the first word of other programs.
    """

    keys: Mapping[str, Alias]
    spelled: Mapping[str, str]
    options: Mapping[str, Alias]
    commands: Mapping[str, str]

    def get(self, path: str) -> Alias | None:
        """Return the meaning of a key as it was typed, else of its last two parts, else of its last."""
        # The more specific entry first: `optimizer.name` is not just `name`.
        head, _, last = path.rpartition(".")
        if head and len(last) == 1:  # `-b 64` is a flag; the last letter of a path is not
            return self.of_path(path)
        return self.of_path(path) or self.keys.get(_key(last))

    def of_path(self, path: str) -> Alias | None:
        """Return the meaning of a key path as it was typed, else of its last two parts; None for a single name."""
        parts = path.split(".")
        if len(parts) == 1:
            return None
        return self.keys.get(_key(path)) or self.keys.get(_key(".".join(parts[-2:])))

    def entry(self, group: str, name: str) -> str | None:
        """Return the option whose entry in a group has this name elsewhere: `callbacks.model_checkpoint`."""
        return self.options.get(group, Alias()).entries.get(folded(name))


@cache
def table() -> Table:
    """Return the shipped table."""
    # Read when the first unknown key is met, and once: a valid config never needs the table.
    tree = _Loader(_FILE.read_text(encoding="utf-8")).get_single_data()
    keys: dict[str, Alias] = {}
    spelled: dict[str, str] = {}
    for entry in tree["keys"]:
        alias = _alias(entry)
        for name in entry["names"]:
            keys.setdefault(_key(name), alias)
            spelled.setdefault(_key(name), name)
    options = {group: _alias(entry) for group, entry in tree["options"].items()}
    return Table(keys, spelled, options, tree["commands"])


def spell_value(text: str) -> str:
    """Return a value as `values` are looked up: folded, but for numbers, whose point and sign folding would remove."""
    return text if re.fullmatch(r"[+-]?[\d._]+", text) else folded(text)


def _key(path: str) -> str:
    """Return a key path with each of its parts folded."""
    return ".".join(folded(part) for part in path.split("."))


def _alias(entry: Mapping[str, Any]) -> Alias:
    to = entry.get("to", ())
    return Alias(
        to=(to,) if isinstance(to, str) else tuple(to),
        values={spell_value(name): fix for name, fix in entry.get("values", {}).items()},
        entries={folded(name): option for name, option in entry.get("entries", {}).items()},
        first=bool(entry.get("first")),
        **{name: entry.get(name, "") for name in ("group", "convert", "why", "unsupported")},
    )
