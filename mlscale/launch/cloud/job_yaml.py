"""Render job files as YAML: values are quoted by the library, and texts of several lines stay readable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


class _JobDumper(yaml.SafeDumper):
    """A dumper that writes texts of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Blanks at the end of a line can't be kept in a block: the library then falls back to quotes by itself.
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_JobDumper.add_representer(str, _represent_text)


def render_scalar(value: object) -> str:
    """Return the text of a value that has to be a text: `true` for True, as YAML writes it, and labels of nodes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def render_yaml(document: Mapping[str, Any]) -> str:
    """Return a document as YAML text, its keys in their order."""
    return yaml.dump(dict(document), Dumper=_JobDumper, sort_keys=False, allow_unicode=True, width=120)
