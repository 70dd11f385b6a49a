"""Names from other programs: the table `foreign_names.yaml`, read when a name is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml

from mlscale.config.names.suggest import fold_name, format_hydra_value

_FILE = Path(__file__).with_name("foreign_names.yaml")
_BOOLEANS = {"no": "false", "off": "false", "0": "false", "yes": "true", "on": "true", "1": "true"}
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def load_foreign_names() -> Mapping[str, Sequence[str]]:
    """Return the meanings of each name: a key, a group, an override, or a sentence for what has no counterpart."""
    meanings: dict[str, list[str]] = {}
    for meaning, names in _Loader(_FILE.read_text(encoding="utf-8")).get_single_data().items():
        for name in names:
            meanings.setdefault(_fold(str(name)), []).append(meaning)
    return meanings


def find_meanings(path: str) -> Sequence[str]:
    """Return the meanings of a key as it was typed, else of its last two parts, else of its last."""
    parts = path.split(".")
    # `-b 64` is a flag; the last letter of a path is not.
    names = [path, ".".join(parts[-2:]), *([parts[-1]] if len(parts) == 1 or len(parts[-1]) > 1 else [])]
    return next((load_foreign_names()[name] for name in map(_fold, names) if name in load_foreign_names()), ())


def is_listed(path: str) -> bool:
    """Return whether the table has a key as it was typed, not its last part alone."""
    return _fold(path) in load_foreign_names()


def find_value_meanings(key: str, value: object) -> Sequence[str]:
    """Return the meanings of a value of a key: that of `mode=minimize` is mode=min."""
    text = format_hydra_value(value[0] if isinstance(value, list) and len(value) == 1 else value).strip("'")
    texts = (text, _BOOLEANS.get(text.lower(), text))
    return next(filter(None, (load_foreign_names().get(_fold(f"{key}={text}")) for text in texts)), ())


def find_value_meaning(key: str, value: object) -> str:
    """Return the first meaning of a value of a key; "" for none."""
    return next(iter(find_value_meanings(key, value)), "")


def is_sentence(meaning: str) -> bool:
    """Return whether a meaning is a sentence, not a key or overrides."""
    return not all("=" in word for word in meaning.split(" ")) and " " in meaning


def _fold(name: str) -> str:
    """Return a name with each of its parts folded, but for the sign of a value."""
    key, sign, value = name.partition("=")
    return ".".join(fold_name(part) for part in key.split(".")) + sign + value.lower().replace("_", "-")
