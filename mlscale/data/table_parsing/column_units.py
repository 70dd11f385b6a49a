"""The units of a table's columns, as they are configured: by name, as one text, or in a file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError

WHERE = "data.units"
_PLAIN = re.compile(r"(?!(?i:true|false|null|yes|no|on|off)$)[a-z]\w*", re.ASCII | re.IGNORECASE)
_FIX = "data.units=units.csv, a file with a line `column,unit` for each; any name can be in it, in quotes"


def read_column_units(units: Mapping[Any, object] | str | None) -> dict[str, str]:
    """Return the unit of each column by its name.

    Args:
        units: by name; or a CSV file of column,unit lines, or a YAML file of `column: unit`; or the text of a mapping
            in YAML, which names columns in quotes that Hydra's grammar has no way to write.

    Raises:
        MLScaleError: the text is not a mapping, or the file can't be read.
    """
    if isinstance(units, str):
        units = _parse_mapping(units) if units.lstrip().startswith("{") else _read_units_file(units)
    return {_format_name(name): str(unit) for name, unit in (units or {}).items()}


def format_units_override(name: str, unit: str) -> str:
    """Return the override that gives a column its unit, as it is typed in a shell."""
    if _PLAIN.fullmatch(name):
        return f"'{WHERE}={{{name}: {unit}}}'"
    # A single-quoted text has but one escape in YAML, so that any other character stays as it is.
    quoted = "'" + name.replace("'", "''") + "'"
    text = f"{WHERE}={{{quoted}: {unit}}}"
    return '"' + "".join("\\" + mark if mark in '$`"\\' else mark for mark in text) + '"'


def _format_name(name: object) -> str:
    # Hydra and YAML read these names as other types.
    return str(name).lower() if isinstance(name, bool) or name is None else str(name)


def _parse_mapping(text: str) -> Mapping[Any, object]:
    # Imported on use: the loader alone has no units.
    import yaml

    try:
        units = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise _build_unreadable_error(
            text, f"{problem}; a name with brackets, commas or quotes is in quotes"
        ) from error
    if not isinstance(units, dict) or any(unit is None or isinstance(unit, dict | list) for unit in units.values()):
        raise _build_unreadable_error(
            text, "it is not `column: unit`, with commas between; a name with a comma is in quotes"
        )
    return units


def _read_units_file(path: str) -> Mapping[Any, object]:
    file = Path(path).expanduser()
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which would be a part of the first name.
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _build_unreadable_error(path, getattr(error, "strerror", None) or str(error)) from error
    if file.suffix.lower() in (".yaml", ".yml", ".json"):
        return _parse_mapping(text)
    lines = [line for line in csv.reader(text.splitlines()) if line]
    if wrong := next((line for line in lines if len(line) != 2), None):
        raise _build_unreadable_error(path, f"the line {','.join(wrong)!r} is not column,unit")
    # A heading is recognised by its first word, as no other line can be: its column would need that name.
    return dict(lines[1:] if lines and lines[0] == ["column", "unit"] else lines)


def _build_unreadable_error(units: str, why: str) -> MLScaleError:
    return MLScaleError(f"the units {units!r} can't be read", where=WHERE, why=why, fix=_FIX)
