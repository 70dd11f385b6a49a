"""What may be typed: the keys of all commands with their types, the options of the groups, the actions."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

from mlscale.commands import COMMANDS
from mlscale.config.schema.documented_fields import Fields, Option, get_shipped_fields
from mlscale.config.schema.roots import COMMAND_BASES, Roots, find_roots
from mlscale.config.schema.target_nodes import Node
from mlscale.config.schema.value_types import Type
from mlscale.config.signatures.signatures import Signature, read_signature
from tests.fixes.grammar import PLACE
from tests.fixes.source import ROOT

_ELSEWHERE = ("hydra.", "derived.")  # Hydra's own, and what is never typed
_OF_USERS = ("task.task_type",)  # of a task of the user's own: docs/extending.md


class KnownWords:
    """The keys and options of every shipped file.

    Attributes:
        types: by key path, for each place that has the key the types that its value must have.
        open_nodes: paths of objects that take any key: a user's own class, or one with `**kwargs`.
    """

    def __init__(self) -> None:
        self.fields: Fields = get_shipped_fields()
        self.roots: Roots = find_roots()
        self.types: dict[str, list[list[Type]]] = defaultdict(list)
        self.open_nodes: set[str] = set()
        for option in self.fields.options:
            self._add_option(option)
        for command in COMMAND_BASES:
            for path, item in self.fields.get_command_fields(command).items():
                self.types[path].append([item.type] if item.type else [])
        actions = [action for command in COMMANDS.values() for action in command.actions.values()]
        names = [[item.name for item in action.keys] + [item.name for item in action.words] for action in actions]
        self._action_names = {name for several in names for name in several}

    def _add_option(self, option: Option) -> None:
        if option.target is not None:
            self._add_node(option.package, option.target)
        for item in option.fields:
            # The keys of an object have the types of its signature, added above.
            if option.target is None or item.path not in self.types:
                self.types[item.path].append([item.type] if item.type else [])

    def _add_node(self, path: str, target: str) -> None:
        node = Node(path, {"_target_": target}, self.fields)
        if not isinstance(node.signature, Signature) or node.signature.open:
            self.open_nodes.add(path)
        for known in node.paths:
            self.types[known].append(node.get_types(known.rpartition(".")[2]))

    def has_key(self, path: str) -> bool:
        """Return whether some command or object has this key, `PLACE` standing for any letters."""
        head, _, last = path.rpartition(".")
        pattern = re.compile(re.escape(path).replace(PLACE, r"[\w./@-]+") + r"(\..+)?")
        heads = re.compile(re.escape(head).replace(PLACE, r"[\w./@-]+"))
        return (
            path in _OF_USERS
            or last in ("_target_", "_partial_")
            or path.startswith(_ELSEWHERE)
            or any(path.startswith(f"{node}.") for node in self.open_nodes)
            or any(pattern.fullmatch(known) for known in self._names)
            or any(heads.fullmatch(known) for known in self._mappings)
        )

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset({*self.types, *self.roots.groups, *self._action_names})

    @cached_property
    def _mappings(self) -> list[str]:
        """The keys that take a mapping, whose names are the user's: `data.mix.mine`."""
        kinds = {path: [kind for kinds in places for kind in kinds] for path, places in self.types.items()}
        return [path for path, known in kinds.items() if any(kind.accepts({"name": 1}) for kind in known)]

    def is_of_others(self, path: str, command: str) -> bool:
        """Return whether a key is a setting of other commands alone."""
        owners = [name for name in COMMAND_BASES if path in self.fields.get_own_fields(name)]
        return bool(owners) and path not in self.fields.get_command_fields(command)

    def takes(self, path: str, value: object) -> bool:
        """Return whether the key takes this value in at least one of the places that have it."""
        places = self.types.get(path, [])
        return not places or any(all(kind.accepts(value) for kind in kinds) for kinds in places)

    def list_options(self, group: str) -> tuple[str, ...]:
        return tuple(self.roots.groups.get(group, ()))


@cache
def get_known_words() -> KnownWords:
    return KnownWords()


@cache
def list_extras() -> frozenset[str]:
    """Return the extras of the package."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return frozenset(document["project"]["optional-dependencies"])


def find_absent_pages(text: str) -> Iterator[str]:
    """Yield the pages of docs/ that a text names and that do not exist."""
    yield from (page for page in re.findall(r"docs/[\w./-]+\.md", text) if not (ROOT / page).is_file())


def find_absent_names(text: str) -> Iterator[str]:
    """Yield the dotted names of mlscale that a text names and that do not exist."""
    for name in re.findall(r"\bmlscale(?:\.[A-Za-z_]\w*)+", text):
        path = Path(ROOT, *name.split("."))
        is_module = path.is_dir() or path.with_suffix(".py").is_file()
        # Read from source, as the config's check does: importing data or tasks takes seconds.
        if not is_module and not isinstance(read_signature(name), Signature):
            yield name


def is_expression(text: str) -> bool:
    """Return whether a text is an expression of Python."""
    try:
        ast.parse(text.replace("{!r}", "0"), mode="eval")
    except SyntaxError:
        return False
    return True
