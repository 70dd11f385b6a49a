"""Tier 1 of the check: everything about a composed config that needs no import of what it names. All problems at once.

Nothing here imports torch: targets are read from source. The order of the messages is the order of the config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from mlscale.config.checks import group_nodes
from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.checks.dali_support import check_dali_augmentation
from mlscale.config.checks.interpolations import check_interpolations
from mlscale.config.checks.metric_names import check_metric_names
from mlscale.config.checks.node_check import NodeCheck
from mlscale.config.checks.refused_keys import check_unknown_key
from mlscale.config.checks.suggestions import correct_front
from mlscale.config.checks.tracker_address import check_tracker_addresses
from mlscale.config.checks.value_check import ValueCheck
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.documented_fields import MISSING
from mlscale.config.schema.target_nodes import Node, iterate_outermost_nodes, join_path
from mlscale.config.schema.values import create_missing_error
from mlscale.errors import MLScaleError


def check_config(
    cfg: DictConfig,
    *,
    groups: Mapping[str, Sequence[str]],
    origin: Callable[[str], str] | None = None,
    command: str = "train",
    command_files: Sequence[Path] = (),
    left_over: dict[str, list[str]] | None = None,
) -> list[MLScaleError]:
    """Return every problem of a composed, unresolved config that can be found without importing its targets.

    Args:
        groups: every config group with its options.
        origin: returns the file or override that set a key path; called only where there is a problem.
        command: the command, whose own keys are allowed at the top.
        command_files: of a third-party command, which document its keys: the options of the group of its name.
        left_over: filled with the keys, by the path of their object, that an option's file sets and that the target
            which was typed instead of the file's does not take: they are not a problem, but must be left out.
    """
    config = CheckedConfig(cfg, groups, origin, command, command_files)
    checking = _ConfigCheck(config)
    problems = list(checking.iterate_problems())
    if left_over is not None:
        left_over.update(checking.left_over)
    return problems


_FEW = 12  # keys that a message can hold


class _ConfigCheck:
    """One config under check; each method yields the problems of what it is named for."""

    def __init__(self, config: CheckedConfig) -> None:
        self._config, self._values = config, ValueCheck(config)
        self._nodes = NodeCheck(config, self._values)

    @property
    def left_over(self) -> Mapping[str, list[str]]:
        """The keys that the typed targets do not take, by the path of their object."""
        return self._nodes.left_over

    def iterate_problems(self) -> Iterator[MLScaleError]:
        for key, value in self._config.tree.items():
            if key == "derived" and isinstance(value, dict):
                yield from self._check_derived(value)
            elif key in self._config.top_groups:
                yield from self._check_group(key, value)
            elif key in self._config.top_keys and not self._is_misspelt_group(key, value):
                yield from self._check_plain_key(key, value)
            else:
                yield from check_unknown_key(self._config, key, value)
        yield from check_metric_names(self._config)
        yield from check_tracker_addresses(self._config)
        yield from check_dali_augmentation(self._config)
        yield from self._values.check_interpolated_values()
        yield from check_interpolations(self._config.cfg, list(self._config.names.paths), self._config.describe_origin)

    def _is_misspelt_group(self, key: str, value: object) -> bool:
        """Return whether a key that takes no dictionary is a typo of a group: `mode.widths=[8]`."""
        kind = self._config.top_fields[key].type if key in self._config.top_fields else None
        takes_none = isinstance(value, dict) and kind is not None and not kind.accepts(value)
        if not takes_none or not correct_front(key, self._config.names):
            return False
        self._values.mark_wrong(key)
        return True

    def _check_derived(self, node: dict[str, object]) -> Iterator[MLScaleError]:
        for key, value in node.items():
            path = join_path("derived", key)
            # The base has these keys with their defaults: only a changed value was typed.
            if path in self._config.top_fields and value == self._config.top_fields[path].default:
                continue
            decides = rules.DERIVED_FROM.get(key)
            yield MLScaleError(
                f"'{path}' is filled in at start, never set by hand",
                where=self._config.describe_origin(path),
                why=f"{decides} decides it" if decides else "it comes from the data and the machine",
                fix=f"{decides}=<value>" if decides else f"leave {path} out",
            )

    def _check_plain_key(self, path: str, value: object) -> Iterator[MLScaleError]:
        """Yield the problems of a documented key that belongs to no object."""
        field = self._config.find_field(path)
        if field is None and isinstance(value, dict):  # a command's settings are in one mapping: estimate.instance
            for key, item in value.items():
                name = join_path(path, str(key))
                known = name in self._config.top_fields or any(
                    other.startswith(f"{name}.") for other in self._config.top_fields
                )
                yield from self._check_plain_key(name, item) if known else check_unknown_key(self._config, name, item)
        elif field is None and (keys := [key for key in self._config.top_fields if key.startswith(f"{path}.")]):
            what, where = f"'{path}' is a mapping of keys, not a value", self._config.describe_origin(path)
            yield MLScaleError(what, where=where, why=f"its keys: {', '.join(keys[:_FEW])}")
        elif value == MISSING:
            yield create_missing_error(path, field, self._config.describe_origin(path))
        elif field is not None and field.type is not None:
            yield from self._values.check_type(path, value, [field.type], field)

    def _check_group(self, name: str, value: object) -> Iterator[MLScaleError]:
        supplied = rules.SUPPLIED.get(name, frozenset())
        # Empty by an option `none`, or an interpolation of another node, which is checked there.
        if not value or (isinstance(value, str) and "${" in value):
            return
        if not isinstance(value, dict):
            yield group_nodes.create_not_a_node_error(self._config, name, value)
        elif "_target_" in value:
            yield from self._nodes.check_node(Node(name, value, self._config.fields), supplied)
        elif name == self._config.command and self._config.command_files:
            yield from self._check_command_keys(name, value)
        elif name in rules.BUILDS_SEVERAL:
            yield from group_nodes.check_entries(self._config, name, value)
            yield from self._nodes.check_objects_inside(name, value)
        # Lightning's lr_scheduler dictionary, for schedulers that do not step by optimizer steps.
        elif name == "scheduler" and "scheduler" in value:
            yield from group_nodes.check_lightning_scheduler(self._config, value)
            for path, item in iterate_outermost_nodes(value, name):
                yield from self._nodes.check_node(Node(path, item, self._config.fields), supplied)
        elif name in rules.BUILDS_ONE:
            yield from group_nodes.check_empty_node(self._config, name, value)
        elif known := self._config.fields.get_node_fields(name):
            yield from group_nodes.check_chosen_option(self._config, name, value)
            for key, item in value.items():
                path = join_path(name, str(key))
                yield from (
                    self._check_plain_key(path, item) if path in known else check_unknown_key(self._config, path, item)
                )
        else:
            yield from self._nodes.check_objects_inside(name, value)

    def _check_command_keys(self, path: str, node: Mapping[str, object]) -> Iterator[MLScaleError]:
        """Yield the problems of a third-party command's own keys, at any depth; its files document them."""
        known = self._config.fields.get_node_fields(self._config.command)
        for key, item in node.items():
            name = join_path(path, str(key))
            field = known.get(name)
            if isinstance(item, dict) and "_target_" in item:
                yield from self._nodes.check_node(Node(name, item, self._config.fields), frozenset())
            elif field is not None and item == MISSING:
                yield create_missing_error(name, field, self._config.describe_origin(name))
            elif field is not None:
                yield from self._values.check_type(name, item, [field.type] if field.type else [], field)
            elif isinstance(item, dict) and any(other.startswith(f"{name}.") for other in known):
                yield from self._check_command_keys(name, item)
            else:
                yield from check_unknown_key(self._config, name, item)
