"""A config under check: its keys and objects, the names that may be set in it, and where each key was set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks.suggestions import Names
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.documented_fields import Field, add_group_files, get_shipped_fields
from mlscale.config.schema.roots import BASE_GROUPS, COMMAND_BASES, SERVICE_GROUPS
from mlscale.config.schema.target_nodes import Node, iterate_nodes, join_path
from mlscale.config.schema.value_types import Type

COMMAND_LINE = "command line: "
"""The start of the origin of a key that was typed and is not in a file."""
STORED_CONFIG = "the run's config.yaml"


def find_chosen_option(group: str, node: object) -> str:
    """Return the option that a group which builds nothing names itself; "" for other groups."""
    if group not in rules.NAMES_ITS_OPTION or not isinstance(node, dict):
        return ""
    key, default = rules.NAMES_ITS_OPTION[group]
    return str(node.get(key) or default)


class CheckedConfig:
    """What every check of one config reads.

    Attributes:
        cfg, tree: the composed config, and its keys with unresolved values.
        groups: every config group with its options.
        origin: returns the file or override that set a key path; called only where there is a problem.
        command: the command, whose own keys are allowed at the top.
        command_files: of a third-party command, which document its keys.
        fields, top_fields: what the shipped YAML documents, and of it the keys of the command by path.
        top_groups, top_keys: the first parts of the key paths that may be set.
        known: the objects that were checked, by key path, with the signatures of imported targets.
    """

    def __init__(
        self,
        cfg: DictConfig,
        groups: Mapping[str, Sequence[str]],
        origin: Callable[[str], str] | None,
        command: str,
        command_files: Sequence[Path] = (),
    ) -> None:
        self.cfg, self.groups, self.origin, self.command = cfg, groups, origin, command
        self.command_files = command_files
        tree = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(tree, dict)
        self.tree: dict[str, object] = {str(key): value for key, value in tree.items() if key != "hydra"}
        self.fields = add_group_files(get_shipped_fields(), command, command_files)
        self.top_fields = self.fields.get_command_fields(command)
        self.known: dict[str, Node] = {}
        first = {group.partition("/")[0] for group in groups}
        first |= set(BASE_GROUPS if COMMAND_BASES[command] == "run" else SERVICE_GROUPS)
        self.top_groups = first - rules.GLOBAL
        self.top_keys = {path.partition(".")[0] for path in self.top_fields}

    @cached_property
    def names(self) -> Names:
        """The keys and options of this config, to suggest from."""
        nodes = [self.known.get(path, node) for path, node in self.nodes.items()]
        paths = [path for path in self.top_fields if not path.startswith("derived.")]
        paths += [path for node in nodes for path in node.paths if path not in rules.OWNED]
        paths += [join_path(node.path, name) for node in nodes for name in rules.PASSED_ON.get(node.target, ())]
        # What is documented of a group that builds nothing; a recipe's own option of one that does may set any key.
        paths += [
            path
            for group, node in self.tree.items()
            if not (isinstance(node, dict) and "_target_" in node)
            for path in self.fields.get_node_fields(group)
        ]
        groups = {group: node for group, node in self.tree.items() if isinstance(node, dict)}
        entries = {
            group: [name for name, item in node.items() if isinstance(item, dict) and "_target_" in item]
            for group, node in groups.items()
        }
        nodes_and_groups = self.top_groups | set(self.nodes)
        return Names(dict.fromkeys(paths), self.groups, self._get_types, nodes_and_groups, entries)

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """The objects of this config by key path."""
        # What is below an unknown key is reported, and never suggested.
        tree = {key: value for key, value in self.tree.items() if key in self.top_groups or key in self.top_keys}
        return {node.path: node for node in iterate_nodes(tree, "", self.fields)}

    def describe_origin(self, path: str) -> str:
        """Return the override or the file that set a key, and the key."""
        source = self.origin(path) if self.origin else ""
        if not source or source.startswith(COMMAND_LINE):
            return source or path
        return f"{source}: {path}"

    def find_field(self, path: str) -> Field | None:
        """Return what is documented of a key that belongs to no object."""
        if path in self.top_fields:
            return self.top_fields[path]
        group = path.partition(".")[0]
        # Options of a group that builds nothing may have a key in common, and describe it each for itself.
        option = find_chosen_option(group, self.tree.get(group))
        return self.fields.get_option_fields(group, option).get(path) or self.fields.find_field(path)

    def is_in_file(self, path: str) -> bool:
        """Return whether a file set a key, not the command line."""
        return self.origin is not None and not self.origin(path).startswith(COMMAND_LINE)

    def _get_types(self, path: str) -> Sequence[Type]:
        """Return the types that the value of a key must have, where they are known."""
        head = path
        while head := head.rpartition(".")[0]:
            if node := self.nodes.get(head):
                return node.get_types(path.removeprefix(f"{head}."))
        field = self.find_field(path)
        return [field.type] if field is not None and field.type is not None else []
