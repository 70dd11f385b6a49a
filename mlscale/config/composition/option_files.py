"""The file that selects an option."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from mlscale.config.schema.roots import Roots

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def find_selecting_file(group: str, option: str, overrides: Sequence[str], roots: Roots) -> str:
    """Return the config file, and its line, whose `defaults` select an option; "" where no file does.

    Args:
        overrides: what the command line selects, where the search begins.
    """
    matches = (
        where for where, other, name in _iterate_selections(overrides, roots) if (other, name) == (group, option)
    )
    return next(matches, "")


def find_selecting_option(group: str, overrides: Sequence[str], roots: Roots, *, own: bool = True) -> tuple[str, str]:
    """Return the first file, and its line, that selects an option of a group, and the option; "" for none.

    Args:
        own: only of the user's files.
    """
    matches = ((where, name) for where, other, name in _iterate_selections(overrides, roots, own=own) if other == group)
    return next(matches, ("", ""))


def _iterate_selections(overrides: Sequence[str], roots: Roots, *, own: bool = False) -> Iterator[tuple[str, str, str]]:
    """Yield each selection in config files, those of the command line's options first: file and line, group, option."""
    waiting = [pair for word in overrides for pair in _parse_selected(word, roots)] + [("base", "run")]
    shipped = [root.path for root in roots.roots if root.shipped]
    seen = set(waiting)
    for here, name in waiting:
        file = roots.files.get(here, {}).get(name)
        skipped = file is None or (own and any(file.is_relative_to(folder) for folder in shipped))
        for group, option, line in _read_defaults(file, here) if file else ():
            if file and not skipped:
                yield f"{format_config_path(file)}: line {line}", group, option
            if (group, option) not in seen:
                seen.add((group, option))
                waiting.append((group, option))


def format_config_path(path: Path) -> str:
    """Return a path as messages name it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _parse_selected(override: str, roots: Roots) -> Iterator[tuple[str, str]]:
    key, _, value = override.lstrip("+").partition("=")
    group = key.partition("@")[0]
    if group in roots.groups:
        yield from ((group, name) for name in re.split(r"[\[\],\s]+", value) if name)


def _read_defaults(file: Path, group: str) -> Iterator[tuple[str, str, int]]:
    """Yield each group and option of a file's defaults list, and the line of it."""
    try:
        tree = yaml.compose(file.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    entries = tree.value if isinstance(tree, yaml.MappingNode) else []
    for key, value in entries:
        if key.value != "defaults" or not isinstance(value, yaml.SequenceNode):
            continue
        for entry in value.value:
            yield from _parse_default_entry(entry, group)


def _parse_default_entry(entry: yaml.Node, group: str) -> Iterator[tuple[str, str, int]]:
    if isinstance(entry, yaml.ScalarNode):
        yield group, str(entry.value), entry.start_mark.line + 1
    elif isinstance(entry, yaml.MappingNode):
        for key, value in entry.value:
            # `override /optimizer@task.optimizer: sgd`: the last word without its package is the group.
            name = str(key.value).split()[-1].partition("@")[0] if key.value else ""
            options = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for option in options:
                yield name.strip("/"), str(option.value).removesuffix(".yaml"), option.start_mark.line + 1
