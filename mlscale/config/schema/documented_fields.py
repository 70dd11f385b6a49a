"""The shipped YAML as documentation: the purpose of each option, and the meaning of each key.

A field's comment is next to its key (`batch_size: 64  # int: global, over all devices`): it gives messages their
'why', keys without a signature their type, and the JSON schema its descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path

import yaml

from mlscale.config.schema.model_arguments import REFERENCES
from mlscale.config.schema.roots import COMMAND_BASES, COMMAND_GROUP, TAKES_MODEL
from mlscale.config.schema.value_types import NONE as NULL
from mlscale.config.schema.value_types import Type, extract_type_word, infer_from_default, make_union, parse_type_word

MISSING = "???"
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)")
_PRIMARY = "."
# libyaml's loader is several times faster; PyYAML has it only where it was built with libyaml.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Field:
    """A key of a shipped file: its full path, type word, description and default."""

    path: str
    word: str
    text: str
    default: object

    @cached_property
    def type(self) -> Type | None:
        """The type by the comment's word, else by the default; null is valid where it is the default."""
        kind = parse_type_word(self.word)
        if kind is None:
            return infer_from_default(self.default) if not _is_interpolated(self.default) else None
        return make_union(kind, NULL) if self.default is None else kind


@dataclass(frozen=True)
class Option:
    """One file of a group: `package` is the path of its keys ("" for the top), `target` its `_target_`, if any."""

    group: str
    name: str
    package: str
    target: str | None
    summary: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Fields:
    """All options of some config folders."""

    options: tuple[Option, ...]

    @cached_property
    def _by_node(self) -> Mapping[tuple[str, str | None], Mapping[str, Field]]:
        by_node: dict[tuple[str, str | None], dict[str, Field]] = {}
        for option in self.options:
            known = by_node.setdefault((option.package, option.target), {})
            for item in option.fields:
                # Several options document the same key of the same target.
                if item.path not in known or (item.word and not known[item.path].word):  # the first that names its type
                    known[item.path] = item
        return by_node

    def get_node_fields(self, node: str, target: str | None = None) -> Mapping[str, Field]:
        """Return the documented fields of the node at this path, by full path, if it has this target."""
        return self._by_node.get((node, target), {})

    @cached_property
    def top(self) -> Mapping[str, Field]:
        """The keys at the top of a run's config: `seed`, `name`, and `derived.*`."""
        return self.get_option_fields("base", "run")

    def get_command_fields(self, command: str) -> Mapping[str, Field]:
        """Return the keys at the top of a command's config: those of its base, and its own."""
        return {**self.get_option_fields("base", COMMAND_BASES[command]), **self.get_own_fields(command)}

    def get_own_fields(self, command: str) -> Mapping[str, Field]:
        """Return the settings of a command that no other command has."""
        own = self.get_option_fields(COMMAND_GROUP, command)
        # A third-party command has no file there: its keys are a group, but for those of the model that it takes.
        return self.get_option_fields(COMMAND_GROUP, TAKES_MODEL) if not own and command in REFERENCES else own

    def get_option_fields(self, group: str, name: str) -> Mapping[str, Field]:
        """Return the fields of one file, by full path."""
        options = [item for item in self.options if (item.group, item.name) == (group, name)]
        return {field.path: field for item in options for field in item.fields}

    def find_field(self, path: str, target: str | None = None) -> Field | None:
        """Return the documented field of one key, None if it has none; `target` is its node's."""
        return self.get_node_fields(path.rpartition(".")[0], target).get(path) or self.top.get(path)

    def list_group_options(self, group: str) -> list[Option]:
        return [option for option in self.options if option.group == group]


@cache
def get_shipped_fields() -> Fields:
    """Return the options that mlscale ships in conf/ and recipes/."""
    return read_option_files(Path(str(files(f"mlscale.{name}"))) for name in ("conf", "recipes"))


def add_group_files(fields: Fields, group: str, group_files: Iterable[Path]) -> Fields:
    """Return the fields with those of files that are not shipped, such as the keys of a third-party command."""
    added = [option for file in group_files if (option := _read_option(file, group)) is not None]
    return Fields((*fields.options, *added)) if added else fields


def read_option_files(folders: Iterable[Path]) -> Fields:
    """Return every option of these config folders. Invalid YAML files are skipped: composing them reports the error."""
    options = []
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            group = file.parent.relative_to(folder).as_posix()
            if group != _PRIMARY and (option := _read_option(file, group)) is not None:
                options.append(option)
    return Fields(tuple(options))


def _read_option(file: Path, group: str) -> Option | None:
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    try:
        # Composed to nodes, not loaded: a field's comment is found by the line and column where its value ends.
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        return None
    package, summary = group.replace("/", "."), []
    for line in lines:
        if match := _PACKAGE.match(line):
            # `_global_` is the top, `_global_.x` is x.
            package = match[1].removeprefix("_global_").removeprefix(".")
        elif line.startswith("#"):
            summary.append(line.lstrip("# ").rstrip())
        else:
            break
    fields = tuple(_iterate_fields(root, lines, package)) if isinstance(root, yaml.MappingNode) else ()
    target = next((item.default for item in fields if item.path == _join_key(package, "_target_")), None)
    return Option(
        group, file.stem, package, target if isinstance(target, str) else None, " ".join(summary).strip(),
        # `_target_` and Hydra's other keys are not settings.
        tuple(item for item in fields if not item.path.rpartition(".")[2].startswith("_")),
    )  # fmt: skip


def _iterate_fields(node: yaml.MappingNode, lines: list[str], package: str) -> Iterator[Field]:
    previous, description = "", ""
    for key, value in node.value:
        if key.value == "defaults" and isinstance(value, yaml.SequenceNode):
            continue
        path = _join_key(package, key.value)
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _iterate_fields(value, lines, path)
            continue
        comment = _read_comment(lines, value)
        # A comment `the same …` continues that of the key above: it has the type and the text of that key.
        kind = previous if comment.startswith("the same") else extract_type_word(comment)
        rest = comment.removeprefix("the same" if comment.startswith("the same") else kind).lstrip(": ")
        description = description + rest if comment.startswith("the same") else rest
        previous, text = kind, description
        yield Field(path, kind, text, _construct_value(value))


def _read_comment(lines: list[str], value: yaml.Node) -> str:
    line = lines[value.end_mark.line] if value.end_mark.line < len(lines) else ""
    rest = line[value.end_mark.column :].strip()
    return rest.lstrip("# ") if rest.startswith("#") else ""


def _construct_value(node: yaml.Node) -> object:
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _is_interpolated(value: object) -> bool:
    return isinstance(value, str) and ("${" in value or value == MISSING)


def _join_key(package: str, key: str) -> str:
    return f"{package}.{key}" if package else key
