"""Features that do not exist yet, by the names that people type for them: `not_yet.yaml`, read when one is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from mlscale.config.names.name_distance import fold_name
from mlscale.errors import MLScaleError

_FILE = Path(__file__).with_name("not_yet.yaml")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Feature:
    """A feature that does not exist yet, and the alternative until then."""

    what: str
    instead: str = ""

    def create_error(self, typed: str, where: str) -> MLScaleError:
        """Return the error for a name of it.

        Args:
            typed: the key or option as it was typed.
        """
        why = f"not part of mlscale yet: {self.what}" + (f"; near to it: {self.instead}" if self.instead else "")
        return MLScaleError(f"'{typed}' is not supported yet", where=where, why=why)


@cache
def load_features() -> Mapping[str, Feature]:
    """Return every name, folded (`group=option` with both parts folded), and its feature."""
    tree = _Loader(_FILE.read_text(encoding="utf-8")).get_single_data()
    return {
        "=".join(fold_name(part) for part in str(name).split("=")): Feature(entry["what"], entry.get("instead", ""))
        for entry in tree
        for name in entry["names"]
    }


def find_feature_of_key(path: str) -> Feature | None:
    """Return the feature that a key, or a part of its path, is a name of."""
    # From the last part on, which is the setting; those before it are groups.
    matches = (load_features().get(fold_name(part)) for part in reversed(path.split(".")))
    return next((item for item in matches if item is not None), None)


def of_value(value: object, group: str = "") -> Feature | None:
    """Return the feature that a typed value, or the only one of a list, is a name of."""
    if isinstance(value, list) and len(value) == 1:
        return of_value(value[0], group)
    return (
        find_feature_of_option(group, str(value))
        if isinstance(value, str | int) and not isinstance(value, bool)
        else None
    )


def find_feature_of_option(group: str, option: str) -> Feature | None:
    """Return the feature that an option of a group is a name of."""
    name = fold_name(option)
    return load_features().get(f"{fold_name(group)}={name}") or load_features().get(name)
