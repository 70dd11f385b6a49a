"""Names from other programs: the table `foreign_names.yaml`, read when a name is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mlscale.config.names.name_distance import fold_name
from mlscale.config.names.suggest import format_hydra_value

_FILE = Path(__file__).with_name("foreign_names.yaml")
# libyaml where it is available: the pure Python loader takes several times as long for the table.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ON, _OFF = ("true", "1", "yes", "on", "y"), ("false", "0", "no", "off", "n")


@dataclass(frozen=True)
class Alias:
    """The meaning of a foreign name here.

    Attributes:
        to: overrides with `{value}` in them, of which the first that suits the config and the value is suggested.
        values: whole overrides for certain values, "" for 'leave it out'.
        group: a config group whose option the value names.
        convert: how `{value}` is made of what was typed: `list`, `global_batch`, `count`, `indices`, `part`.
        why: the difference from the program that the name comes from.
        reasons: the same for certain values.
        unsupported: why the setting does not exist, and the alternative.
        words: what to do where nothing can be typed as it is: a file or a column is missing.
        entries: of a group that builds several, the option that an entry of this name is.
        first: it goes before a key of the same name.
    """

    to: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    convert: str = ""
    why: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)
    unsupported: str = ""
    words: str = ""
    entries: Mapping[str, str] = field(default_factory=dict)
    first: bool = False

    def fix_of(self, value: object) -> str | None:
        """Return the whole override for this value, "" for 'leave it out'; None where it has none of its own."""
        # `[0]` is a list of one device, `[ddp]` the same as `ddp`.
        if isinstance(value, list) and len(value) == 1 and not self.convert:
            value = value[0]
        return next((self.values[word] for word in _spellings(value) if word in self.values), None)

    def why_of(self, value: object) -> str:
        """Return the reason for this value."""
        return next((self.reasons[word] for word in _spellings(value) if word in self.reasons), self.why)

    def is_of(self, path: str) -> bool:
        """Return whether the name is that of this key itself, so that its `values` are values of the key."""
        return any(template.startswith(f"{path}=") for template in self.to)


@dataclass(frozen=True)
class ForeignNameTable:
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

    def find_alias(self, path: str) -> Alias | None:
        """Return the meaning of a key as it was typed, else of its last two parts, else of its last."""
        # The more specific entry first: `optimizer.name` is not just `name`.
        head, _, last = path.rpartition(".")
        if head and len(last) == 1:  # `-b 64` is a flag; the last letter of a path is not
            return self.find_path_alias(path)
        return self.find_path_alias(path) or self.keys.get(_fold_path(last))

    def find_path_alias(self, path: str) -> Alias | None:
        """Return the meaning of a key path as it was typed, else of its last two parts; None for a single name."""
        parts = path.split(".")
        if len(parts) == 1:
            return None
        return self.keys.get(_fold_path(path)) or self.keys.get(_fold_path(".".join(parts[-2:])))

    def find_entry_option(self, group: str, name: str) -> str | None:
        """Return the option whose entry in a group has this name elsewhere: `callbacks.model_checkpoint`."""
        return self.options.get(group, Alias()).entries.get(fold_name(name))


@cache
def load_foreign_names() -> ForeignNameTable:
    """Return the shipped table."""
    # Read when the first unknown key is met, and once: a valid config never needs the table.
    tree = _Loader(_FILE.read_text(encoding="utf-8")).get_single_data()
    keys: dict[str, Alias] = {}
    spelled: dict[str, str] = {}
    for entry in tree["keys"]:
        alias = _parse_alias(entry)
        for name in entry["names"]:
            keys.setdefault(_fold_path(name), alias)
            spelled.setdefault(_fold_path(name), name)
    options = {group: _parse_alias(entry) for group, entry in tree["options"].items()}
    return ForeignNameTable(keys, spelled, options, tree["commands"])


def normalise_value(text: str) -> str:
    """Return a value as `values` are looked up: folded, but for numbers, whose point and sign folding would remove."""
    return text if re.fullmatch(r"[+-]?[\d._]+|<1", text) else fold_name(text)


def _spellings(value: object) -> Iterator[str]:
    """Yield the value as the table's `values` are looked up: as typed, as a switch, and by its kind."""
    text = format_hydra_value(value).strip("'").lower()
    yield text
    yield normalise_value(text)
    if text in _ON:
        yield "true"
    if text in _OFF or text == "null":
        yield "false"
    if isinstance(value, dict):
        yield "{}"
    if isinstance(value, list) or count_devices(value) != value:
        yield "[]"
    if isinstance(value, float) and 0 < value < 1:
        yield "<1"


def count_devices(value: object) -> object:
    """Return the number of devices that a list of their indices names (`[0,1]`, `0,1`); another value as it is."""
    indices = value.strip(" ,[]").split(",") if isinstance(value, str) and re.search(r"[,\[]", value) else value
    if not isinstance(indices, list) or not indices:
        return value
    return -1 if [str(item).strip() for item in indices] == ["-1"] else len(indices)


def _fold_path(path: str) -> str:
    """Return a key path with each of its parts folded."""
    return ".".join(fold_name(part) for part in path.split("."))


def _parse_alias(entry: Mapping[str, Any]) -> Alias:
    to = entry.get("to", ())
    return Alias(
        to=(to,) if isinstance(to, str) else tuple(to),
        values={normalise_value(name): fix for name, fix in entry.get("values", {}).items()},
        reasons={normalise_value(name): why for name, why in entry.get("reasons", {}).items()},
        entries={fold_name(name): option for name, option in entry.get("entries", {}).items()},
        first=bool(entry.get("first")),
        **{name: entry.get(name, "") for name in ("group", "convert", "why", "unsupported", "words")},
    )
