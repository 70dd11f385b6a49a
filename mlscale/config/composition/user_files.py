"""Config files of users, read with care: what YAML would turn into something else, or into gigabytes, is an error.

The file is checked event by event, before anything is built from it: an alias bomb has few events, and many nodes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, ValueNode

from mlscale.errors import MLScaleError, raise_all

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_BYTES = 1 << 20
# A composed config has some hundred values: the limits are far above that, and far below what fills the memory.
_MOST_NODES = 100_000
_DEEPEST = 50
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]*[0-9]")
_BASE_60 = re.compile(r"[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_ENOUGH = 5  # problems of one file


@dataclass
class _Open:
    """A collection that is not closed yet: its number of nodes, aliases expanded, and of direct members."""

    anchor: str | None
    mapping: bool
    nodes: int = 1
    members: int = 0

    @property
    def at_key(self) -> bool:
        return self.mapping and self.members % 2 == 0


def check_text(file: Path, shown: str) -> None:
    """Check a config file before it is read.

    Args:
        shown: the file as messages name it.

    Raises:
        MLScaleError: it is too large, not UTF-8, not YAML, or holds what YAML reads otherwise than it looks.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise MLScaleError(
            "a config file can't be read", where=shown, why=why, fix=f"ls -l {shlex.quote(shown)}"
        ) from None
    if len(data) > _MOST_BYTES:
        why = f"it has {len(data):,} bytes, and a config file {_MOST_BYTES:,} at most"
        raise MLScaleError(
            "a config file is too large", where=shown, why=why, fix="keep data in a file that code reads"
        )
    try:
        # With or without a byte order mark.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        where = f"{shown}: line {line}"
        fix = "save it as UTF-8 in the editor that wrote it"
        raise MLScaleError("a config file is not UTF-8", where=where, why=str(error.reason), fix=fix) from None
    try:
        raise_all(list(islice(_scan_events(text, shown), _ENOUGH)))
    except yaml.YAMLError as error:
        raise create_yaml_error(error, shown) from None


def check_content(config: object, shown: str) -> None:
    """Check what a config file holds: keys, and a defaults list that Hydra can read.

    Raises:
        MLScaleError: it holds a list or a single value, or its `defaults` is not a list of options.
    """
    if not isinstance(config, DictConfig):
        raise MLScaleError(
            "a config file holds no keys", where=shown, why="it is a list", fix="write `key: value` lines"
        )
    node = config._get_node("defaults")
    if node is None:
        return
    if not isinstance(node, ListConfig):
        fix = "write `defaults:` and below it a line for each option: `  - override /optimizer: sgd`"
        raise MLScaleError("'defaults' is not a list", where=f"{shown}: defaults", fix=fix)
    for index in range(len(node)):
        if not _is_default(node._get_node(index)):
            fix = "write `- override /group: option`, `- option` for one of the same group, or `- _self_`"
            where = f"{shown}: defaults[{index}]"
            raise MLScaleError("an entry of 'defaults' names no option", where=where, fix=fix)


def check_recipe(config: DictConfig, package: str | None, groups: Iterable[str], shown: str) -> None:
    """Check that a recipe sets what it names at the top of the config, and not below `recipe`.

    Args:
        package: of its header.
        groups: names of groups.

    Raises:
        MLScaleError: the header is missing or another one, or an entry of its `defaults` is looked for below `recipe`.
    """
    if package != "_global_":
        raise MLScaleError(
            "a recipe does not begin with `# @package _global_`",
            where=shown,
            why=f"its keys would go below '{package or 'recipe'}'",
            fix="write `# @package _global_` as its first line",
        )
    for entry in config._get_node("defaults") or ():  # type: ignore[union-attr]
        name = str(next(iter(entry), "")).split()[-1:] if isinstance(entry, DictConfig) else []
        if name and name[0] in groups and name[0] != "recipe":
            raise MLScaleError(
                f"an entry of 'defaults' names the group '{name[0]}' without a slash",
                where=f"{shown}: defaults",
                why=f"it is looked for below 'recipe': recipe/{name[0]}",
                fix=f"write `- override /{name[0]}: {entry[next(iter(entry))]}`",
            )


def create_yaml_error(error: yaml.YAMLError, shown: str = "") -> MLScaleError:
    """Return the error for a file that is not YAML."""
    mark = getattr(error, "problem_mark", None)
    name = shown or (mark.name if mark else "a config file")
    where = f"{name}: line {mark.line + 1}, column {mark.column + 1}" if mark else name
    why = str(getattr(error, "problem", None) or error)
    return MLScaleError("a config file is not valid YAML", where=where, why=why, fix="correct the line")


def _is_default(node: object) -> bool:
    if isinstance(node, DictConfig):
        return len(node) == 1 and _has_option_names(next(iter(node._content.values())))  # type: ignore[union-attr]
    return isinstance(node, ValueNode) and isinstance(node._value(), str)


def _has_option_names(node: object) -> bool:
    if isinstance(node, ListConfig):
        return all(isinstance(node._get_node(index)._value(), str) for index in range(len(node)))  # type: ignore[union-attr]
    return isinstance(node, ValueNode) and isinstance(node._value(), (str, type(None)))


def _scan_events(text: str, shown: str) -> Iterator[MLScaleError]:
    """Yield the problems in the text of a file, event by event."""
    nodes: dict[str | None, int] = {}
    stack: list[_Open] = []
    documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = f"{shown}: line {event.start_mark.line + 1}" if event.start_mark else shown
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise MLScaleError("a config file holds several documents", where=where, fix="take the line `---` out")
        elif isinstance(event, yaml.CollectionStartEvent):
            if stack and stack[-1].at_key:
                raise MLScaleError("a key is a list or a dictionary", where=where, fix="write `name: value` instead")
            stack.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            if len(stack) > _DEEPEST:
                why = f"more than {_DEEPEST} levels"
                raise MLScaleError("a config file is nested too deeply", where=where, why=why, fix="take levels out")
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = stack.pop()
            if closed.anchor:
                # Sizes are counted with aliases expanded: that is how large the object in memory would be.
                nodes[closed.anchor] = closed.nodes
            _count_nodes(stack, closed.nodes, where)
        elif isinstance(event, yaml.AliasEvent):
            # An alias of a collection that is still open contains itself.
            if any(item.anchor == event.anchor for item in stack):
                fix = f"take *{event.anchor} out"
                raise MLScaleError(f"*{event.anchor} is inside itself", where=where, why="it has no end", fix=fix)
            _count_nodes(stack, nodes.get(event.anchor, 1), where)
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                nodes[event.anchor] = 1
            # Plain scalars only: a quoted one is a text, whatever it looks like.
            if event.implicit[0]:
                at_top = len(stack) == 1 and stack[-1].at_key
                # Only keys at the top name groups and settings; deeper keys, such as class numbers, may be anything.
                yield from _check_key(event.value, where) if at_top else _check_number(event.value, where)
            _count_nodes(stack, 1, where)


def _count_nodes(stack: list[_Open], nodes: int, where: str) -> None:
    if stack:
        stack[-1].nodes += nodes
        stack[-1].members += 1
        if sum(item.nodes for item in stack) > _MOST_NODES:
            why = f"with its aliases (*name) written out it has more than {_MOST_NODES:,} values"
            raise MLScaleError("a config file is too large", where=where, why=why, fix="use fewer aliases")


def _check_key(text: str, where: str) -> Iterator[MLScaleError]:
    """Yield the problem of a key at the top of a file that is not a name: YAML reads `1`, `on` and `null` as a number,
    a boolean and null.
    """
    tag = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    kind = str(tag).rpartition(":")[2]
    if kind not in ("str", "merge", "timestamp"):
        what = f"the key {text or 'without a name'} is not a name"
        yield MLScaleError(what, where=where, why=f"YAML reads it as {kind}", fix=f"write '{text}': in quotes")


def _check_number(text: str, where: str) -> Iterator[MLScaleError]:
    """Yield the problem of a number that YAML reads as octal, or in base 60."""
    if _LEADING_ZERO.fullmatch(text) or _BASE_60.fullmatch(text):
        why = f"YAML reads it as {yaml.safe_load(text)!r}"
        fix = f"write '{text}' in quotes for a text, or a decimal number without leading zeros"
        yield MLScaleError(f"{text} is not a decimal number", where=where, why=why, fix=fix)
