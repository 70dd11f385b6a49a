"""Tier 1 of the check: everything about a composed config that needs no import of what it names. All problems at once.

Nothing here imports torch: targets are read from source. The order of the messages is the order of the config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from math import prod

from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks import group_nodes, moved_nodes
from mlscale.config.checks import key_owners as rules
from mlscale.config.checks.group_nodes import COMMAND_LINE
from mlscale.config.checks.target_nodes import Node, iterate_nodes, iterate_outermost_nodes, join_path
from mlscale.config.checks.templates import Advice, Names, find_chosen
from mlscale.config.checks.value_types import BOOL, Type
from mlscale.config.checks.values import check_resolved_value, check_value_type, create_missing_error
from mlscale.config.composition.interpolations import check_interpolations, resolve_value
from mlscale.config.composition.roots import BASE_GROUPS, COMMAND_BASES, SERVICE_GROUPS
from mlscale.config.documented_fields import MISSING, Field, get_shipped_fields
from mlscale.config.signatures.imported_targets import can_differ, inspect_imported_target, is_mlscale_subclass
from mlscale.config.signatures.signatures import Kind, Parameter, Signature, Unknown
from mlscale.config.suggestions import not_yet
from mlscale.config.suggestions.foreign_names import Alias, load_foreign_names
from mlscale.config.suggestions.near_keys import format_with_value
from mlscale.config.suggestions.near_nodes import correct_first_part
from mlscale.config.suggestions.suggest import find_nearest, format_override
from mlscale.config.suggestions.unknown_keys import render_alias, suggest_key, takes
from mlscale.errors import MLScaleError

_FEW = 12  # names that a message can hold


def check_config(
    cfg: DictConfig,
    *,
    groups: Mapping[str, Sequence[str]],
    origin: Callable[[str], str] | None = None,
    command: str = "train",
    left_over: dict[str, list[str]] | None = None,
) -> list[MLScaleError]:
    """Return every problem of a composed, unresolved config that can be found without importing its targets.

    Args:
        groups: every config group with its options.
        origin: returns the file or override that set a key path; called only where there is a problem.
        command: the command, whose own keys are allowed at the top.
        left_over: filled with the keys, by the path of their object, that an option's file sets and that the target
            which was typed instead of the file's does not take: they are not a problem, but must be left out.
    """
    checking = _ConfigCheck(cfg, groups, origin, command)
    problems = list(checking.iterate_problems())
    if left_over is not None:
        left_over.update(checking.left_over)
    return problems


def collect_names(cfg: DictConfig, *, groups: Mapping[str, Sequence[str]], command: str = "train") -> Names:
    """Return the keys and options that may be set in a composed config."""
    return _ConfigCheck(cfg, groups, None, command).names


class _ConfigCheck:
    """One config under check; each method yields the problems of what it is named for."""

    def __init__(
        self, cfg: DictConfig, groups: Mapping[str, Sequence[str]], origin: Callable[[str], str] | None, command: str
    ) -> None:
        self.cfg, self.groups, self.origin, self.command = cfg, groups, origin, command
        tree = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(tree, dict)
        self.tree: dict[str, object] = {str(key): value for key, value in tree.items() if key != "hydra"}
        self.fields = get_shipped_fields()
        self.left_over: dict[str, list[str]] = {}
        self.known: dict[str, Node] = {}  # by key path, with the signatures of imported targets
        self.wrong: set[str] = set()  # `${key}` of the keys that were reported
        self.interpolated: list[tuple[str, str, Sequence[Type], Field | None, Parameter | None]] = []
        self.top = self.fields.get_command_fields(command)
        first = {group.partition("/")[0] for group in groups}
        first |= set(BASE_GROUPS if COMMAND_BASES[command] == "run" else SERVICE_GROUPS)
        self._groups = first - rules.GLOBAL
        self._top = {path.partition(".")[0] for path in self.top}

    def iterate_problems(self) -> Iterator[MLScaleError]:
        for key, value in self.tree.items():
            if key == "derived" and isinstance(value, dict):
                yield from self._check_derived(value)
            elif key in self._groups:
                yield from self._check_group(key, value)
            elif key in self._top and not self._is_misspelt_group(key, value):
                yield from self._check_plain_key(key, value)
            else:
                yield from self._check_unknown_key(key, value)
        yield from self._check_resolved()
        yield from check_interpolations(self.cfg, list(self.names.paths), self.describe_origin)

    @cached_property
    def names(self) -> Names:
        """The keys and options of this config, to suggest from."""
        nodes = [self.known.get(path, node) for path, node in self._nodes.items()]
        paths = [path for path in self.top if not path.startswith("derived.")]
        paths += [path for node in nodes for path in node.paths if path not in rules.OWNED]
        # What is documented of a group that builds nothing; a recipe's own option of one that does may set any key.
        paths += [
            path
            for group, node in self.tree.items()
            if not (isinstance(node, dict) and "_target_" in node)
            for path in self.fields.get_node_fields(group)
        ]
        trainer = self.tree.get("trainer")
        given = trainer if isinstance(trainer, dict) else {}
        counts = [given.get(key) for key in ("devices", "accumulate_grad_batches")]
        batches = prod(count for count in counts if isinstance(count, int) and count > 0)
        nodes_and_groups = self._groups | set(self._nodes)
        epochs = given.get("max_epochs")
        return Names(
            dict.fromkeys(paths),
            self.groups,
            batches,
            self._get_types,
            nodes_and_groups,
            find_chosen(self.tree),
            epochs if isinstance(epochs, int) and epochs > 0 else None,
        )

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        # What is below an unknown key is reported, and never suggested.
        tree = {key: value for key, value in self.tree.items() if key in self._groups or key in self._top}
        return {node.path: node for node in iterate_nodes(tree, "", self.fields)}

    def _get_types(self, path: str) -> Sequence[Type]:
        """Return the types that the value of a key must have, where they are known."""
        head = path
        while head := head.rpartition(".")[0]:
            if node := self._nodes.get(head):
                return node.get_types(path.removeprefix(f"{head}."))
        field = self.top.get(path) or self.fields.find_field(path)
        return [field.type] if field is not None and field.type is not None else []

    def describe_origin(self, path: str) -> str:
        """Return the override or the file that set a key, and the key."""
        source = self.origin(path) if self.origin else ""
        if not source or source.startswith(COMMAND_LINE):
            return source or path
        return f"{source}: {path}"

    def _is_in_file(self, path: str) -> bool:
        return self.origin is not None and not self.origin(path).startswith(COMMAND_LINE)

    def _check_unknown_key(self, path: str, value: object, why: str = "") -> Iterator[MLScaleError]:
        """Yield the problem of a key that nothing takes; of a dictionary, one for each of its leaves."""
        # By its leaves: each of them may be a misspelt key of its own.
        alias = load_foreign_names().find_alias(path)
        if isinstance(value, dict) and value and self._holds_keys(path, alias, value):
            for key, item in value.items():
                yield from self._check_unknown_key(join_path(path, str(key)), item, why)
            return
        what = f"unknown key '{path}'"
        # `batch=32` of a training run is what it is elsewhere, though `mlscale loadtest` has a key of this name.
        brought = self.command == "train" and alias is not None and not alias.unsupported
        # A key of another command is valid, only in the wrong place: a near name would be a wrong suggestion.
        for command in COMMAND_BASES:
            if command != self.command and path in self.fields.get_own_fields(command) and not brought:
                why = f"it is a key of `mlscale {command}`"
                yield MLScaleError(
                    what,
                    where=self.describe_origin(path),
                    why=why,
                    fix=f"mlscale {command} {format_override(path, value)}",
                )
                return
        free = alias is not None and takes(alias, value, self.names)  # `run_name=yolo` is a name
        if feature := not_yet.find_feature_of_key(path) or (
            None if free else not_yet.of_value(value, alias.group if alias is not None else "")
        ):
            yield feature.create_error(format_override(path, value), self.describe_origin(path))
            return
        advice = self._suggest_moved(path, value) or suggest_key(path, value, self.names)
        fix = advice.fix if advice else ""
        if self._is_in_file(path):
            fix = _suggest_in_file(path, fix)
        why = (advice.why if advice else "") or why
        yield MLScaleError(what, where=self.describe_origin(path), why=why, fix=fix or self._list_sibling_keys(path))

    def _is_misspelt_group(self, key: str, value: object) -> bool:
        """Return whether a key that takes no dictionary is a typo of a group: `mode.widths=[8]`."""
        kind = self.top[key].type if key in self.top else None
        takes_none = isinstance(value, dict) and kind is not None and not kind.accepts(value)
        if not takes_none or not correct_first_part(key, self.names):
            return False
        self.wrong.add("${" + key + "}")
        return True

    def _holds_keys(self, path: str, alias: Alias | None, value: dict[str, object]) -> bool:
        """Return whether each key of an unknown dictionary is reported by itself: it is not the value of a key."""
        if corrected := correct_first_part(path, self.names):
            # `optimzer={_target_: …, lr: 1}` is the group, misspelt: each of its keys has one that is meant.
            moved = "_target_" in value and alias is not None and alias.group == corrected
            return corrected not in self.names.paths and not moved
        return "_target_" not in value and not self._is_value(alias, value)

    def _is_value(self, alias: Alias | None, value: dict[str, object]) -> bool:
        """Return whether a dictionary is the value of a foreign name, not settings below it: `max_time={hours:1}`."""
        if alias is None:
            return False
        return not all(isinstance(key, str) for key in value) or takes(alias, value, self.names)

    def _suggest_moved(self, path: str, value: object) -> Advice | None:
        """Return the fix for an object that was typed where another group owns it: `model.optimizer._target_=…`."""
        last, alias = path.rpartition(".")[2], load_foreign_names().find_alias(path)
        group = last if last in self.groups else alias.group if alias is not None else ""
        fix = moved_nodes.suggest_moved_node(group, value, self.groups, self.fields, self._suggest_missing_arguments)
        return Advice(fix, f"the group '{group}' owns it") if fix else None

    def _suggest_override(self, path: str, value: object, *, exists: bool = False) -> str:
        if exists and path in self.names.paths:
            return format_with_value(path, value, self.names)
        advice = suggest_key(path, value, self.names)
        return advice.fix if advice else ""

    def _list_sibling_keys(self, path: str) -> str:
        """Return the sibling keys as a fix where no name is near, or the command that prints them all."""
        head = path.rpartition(".")[0]
        siblings = [item for item in self.names.paths if head and item.rpartition(".")[0] == head]
        few = 0 < len(siblings) <= _FEW
        return f"there are: {', '.join(siblings)}" if few else "mlscale config show prints every key there is"

    def _check_derived(self, node: dict[str, object]) -> Iterator[MLScaleError]:
        for key, value in node.items():
            path = join_path("derived", key)
            # The base has these keys with their defaults: only a changed value was typed.
            if path in self.top and value == self.top[path].default:
                continue
            decides = rules.DERIVED_FROM.get(key)
            yield MLScaleError(
                f"'{path}' is filled in at start, never set by hand",
                where=self.describe_origin(path),
                why=f"{decides} decides it" if decides else "it comes from the data and the machine",
                fix=f"{decides}=<value>" if decides else f"leave {path} out",
            )

    def _check_plain_key(self, path: str, value: object) -> Iterator[MLScaleError]:
        """Yield the problems of a documented key that belongs to no object."""
        field = self.top.get(path) or self.fields.find_field(path)
        if field is None and isinstance(value, dict):  # a command's settings are in one mapping: estimate.instance
            for key, item in value.items():
                name = join_path(path, str(key))
                known = name in self.top or any(other.startswith(f"{name}.") for other in self.top)
                yield from self._check_plain_key(name, item) if known else self._check_unknown_key(name, item)
        elif value == MISSING:
            yield create_missing_error(path, field, self.describe_origin(path))
        elif field is not None and field.type is not None:
            yield from self._check_type(path, value, [field.type], field)

    def _check_type(
        self,
        path: str,
        value: object,
        types: Sequence[Type],
        field: Field | None,
        parameter: Parameter | None = None,
    ) -> Iterator[MLScaleError]:
        """Yield the problem of a value of the wrong type; interpolations are collected and checked last."""
        if isinstance(value, str) and "${" in value:
            self.interpolated.append((path, value, types, field, parameter))
        for problem in check_value_type(path, value, types, field, parameter, self.describe_origin):
            self.wrong.add("${" + path + "}")
            feature = not_yet.of_value(value)
            yield feature.create_error(format_override(path, value), self.describe_origin(path)) if feature else problem

    def _check_resolved(self) -> Iterator[MLScaleError]:
        """Yield the problems of interpolations of the wrong type. One that repeats a key is checked after that key, so
        that a problem is reported once.
        """
        keys = {"${" + path + "}" for path, *_ in self.interpolated}
        for path, raw, types, field, parameter in sorted(self.interpolated, key=lambda item: item[1] in keys):
            value = None if raw in self.wrong else resolve_value(self.cfg, path)
            problems = list(check_resolved_value(path, raw, value, types, field, parameter, self.describe_origin))
            if problems or raw in self.wrong:
                self.wrong.add("${" + path + "}")
            yield from problems

    def _check_group(self, name: str, value: object) -> Iterator[MLScaleError]:
        supplied = rules.SUPPLIED.get(name, frozenset())
        # Empty by an option `none`, or an interpolation of another node, which is checked there.
        if not value or (isinstance(value, str) and "${" in value):
            return
        if not isinstance(value, dict):
            yield group_nodes.create_not_a_node_error(name, value, self.groups, self.describe_origin)
        elif "_target_" in value:
            yield from self._check_node(Node(name, value, self.fields), supplied)
        elif name in rules.BUILDS_SEVERAL:
            advised = partial(suggest_key, names=self.names)
            yield from group_nodes.check_entries(name, value, self.groups, self.describe_origin, advised)
            yield from self._check_objects_inside(name, value)
        # Lightning's lr_scheduler dictionary, for schedulers that do not step by optimizer steps.
        elif name == "scheduler" and "scheduler" in value:
            yield from group_nodes.check_lightning_scheduler(value, self.describe_origin)
            for path, item in iterate_outermost_nodes(value, name):
                yield from self._check_node(Node(path, item, self.fields), supplied)
        elif name in rules.BUILDS_ONE:
            yield from group_nodes.check_empty_node(
                name, value, self.fields, self.describe_origin, self._suggest_override
            )
        elif known := self.fields.get_node_fields(name):
            for key, item in value.items():
                path = join_path(name, str(key))
                yield from self._check_plain_key(path, item) if path in known else self._check_unknown_key(path, item)
        else:
            yield from self._check_objects_inside(name, value)

    def _check_objects_inside(self, path: str, value: object) -> Iterator[MLScaleError]:
        for name, item in iterate_outermost_nodes(value, path):
            yield from self._check_node(Node(name, item, self.fields), frozenset())

    def _check_node(self, node: Node, supplied: frozenset[str]) -> Iterator[MLScaleError]:
        """Yield the problems of one object: its target, its keys, missing arguments; then those of the objects inside
        it.
        """
        inner = node.value
        if node.value.get(rules.CHECK) is not False:
            self.known[node.path] = known = self._add_signature(node, supplied)
            yield from self._check_own_keys(known, supplied)
            # Objects below a refused key would only repeat its problem.
            inner = {key: value for key, value in inner.items() if not self._is_refused(known, key)}
        yield from self._check_objects_inside(node.path, inner)

    def _is_refused(self, node: Node, key: str) -> bool:
        """Return whether the node does not take this key at all, which its own problem reports."""
        signature = node.signature
        unknown = isinstance(signature, Signature) and not signature.open and key not in signature.named
        return join_path(node.path, key) in rules.OWNED or (unknown and key not in rules.NODE_KEYS)

    def _add_signature(self, node: Node, supplied: frozenset[str]) -> Node:
        """Return the node with the signature of its imported target, if its source is not certain about something that
        would be refused or left out.
        """
        signature = node.signature
        # Importing third-party code is slow and may have side effects: done only where source leaves a doubt that would
        # lead to a refusal.
        doubt = True
        if isinstance(signature, Signature):
            unread = signature.open and not any(item.kind is Kind.VAR_KEYWORD for item in signature.parameters)
            doubt = unread or (signature.open and bool(self._find_missing_arguments(node, signature, supplied)))
        imported = inspect_imported_target(node.target) if doubt and can_differ(node.target) else None
        if (
            isinstance(signature, Unknown)
            and isinstance(imported, Unknown)
            and (signature.better or not imported.better)
        ):
            return node if signature.missing else replace(node, imported=imported)
        return replace(node, imported=imported)

    def _check_own_keys(self, node: Node, supplied: frozenset[str]) -> Iterator[MLScaleError]:
        """Yield the problems of the node itself."""
        signature = node.signature
        if isinstance(signature, Signature):
            left = self._find_left_over(node, signature)
            if left:
                self.left_over[node.path] = left
            for key, value in node.value.items():
                if key == rules.CHECK:
                    yield from self._check_type(join_path(node.path, key), value, [BOOL], None)
                elif key not in rules.NODE_KEYS and key not in left:
                    yield from self._check_argument(node, signature, key, value)
            yield from self._check_missing_arguments(node, signature, supplied)
        elif signature.missing:
            yield node.create_not_found_error(self.describe_origin)

    def _check_argument(self, node: Node, signature: Signature, key: str, value: object) -> Iterator[MLScaleError]:
        path, parameter = join_path(node.path, key), signature.named.get(key)
        if path in rules.OWNED:
            yield self._report_owned_key(path, value)
        elif parameter is None and not signature.open:
            yield from self._check_unknown_key(path, value, f"{node.target} takes no '{key}'")
        elif value == MISSING:
            yield create_missing_error(path, node.get_field(key), self.describe_origin(path), parameter)
        else:
            yield from self._check_type(path, value, node.get_types(key), node.get_field(key), parameter)
            yield from self._check_nested_keys(node, path, value)

    def _check_nested_keys(self, node: Node, path: str, value: object) -> Iterator[MLScaleError]:
        """Yield the problems of the keys of a documented dictionary: `callbacks.notify.mail.host`."""
        known = {name: field for name, field in node.documented.items() if name.startswith(f"{path}.")}
        if not known or not isinstance(value, dict):
            return
        for key, item in value.items():
            name = join_path(path, str(key))
            if name not in known:
                yield from self._check_unknown_key(name, item, f"'{path}' takes no '{key}'")
            elif kind := known[name].type:
                yield from self._check_type(name, item, [kind], known[name])

    def _find_left_over(self, node: Node, signature: Signature) -> list[str]:
        """Return the keys of an option's file that do not suit the target which was typed instead of the file's: those
        that its signature does not name, with or without `**kwargs`, and those for which third-party data, modules and
        strategies have defaults of their own with another meaning.
        """
        # A subclass of a built-in class passes its `**kwargs` to that class.
        if signature.open and is_mlscale_subclass(node.target):
            return []  # its `**kwargs` go to a class that takes them
        theirs: frozenset[str] = frozenset()
        if not str(node.target).startswith("mlscale."):
            theirs = rules.KEEP_THEIR_DEFAULTS.get(node.path, theirs)
        named = signature.named
        known = self._list_documented_keys(node) if signature.open else frozenset()
        keys = [key for key in map(str, node.value) if key not in rules.NODE_KEYS and key not in known]
        unsuited = [key for key in keys if key not in named or (key in theirs and not named[key].required)]
        # What was typed is known at once; only for a key out of a file are the files read again.
        left = [key for key in unsuited if self.origin is not None and self._is_in_file(join_path(node.path, key))]
        # A target in a file comes with the keys next to it: there an unsuited key is a mistake, and reported as one.
        return left if left and not self._is_in_file(join_path(node.path, "_target_")) else []

    def _list_documented_keys(self, node: Node) -> frozenset[str]:
        """Return the keys of shipped options for targets of the same package: torchvision's and timm's builders pass
        their `**kwargs` to a network that takes them.
        """
        package = node.target.partition(".")[0]
        options = [item for item in self.fields.options if item.package == node.path]
        alike = [item for item in options if (item.target or "").partition(".")[0] == package]
        return frozenset(field.path.rpartition(".")[2] for item in alike for field in item.fields)

    def _report_owned_key(self, path: str, value: object) -> MLScaleError:
        owner = rules.OWNED[path]
        if feature := not_yet.of_value(value, owner.alias.group):
            return feature.create_error(format_override(path, value), self.describe_origin(path))
        fix = self._suggest_for_owned(owner.alias, path, value) or f"leave {path} out"
        if self._is_in_file(path):
            fix = _suggest_in_file(path, fix)
        return MLScaleError(f"'{path}' is not set here", where=self.describe_origin(path), why=owner.why, fix=fix)

    def _suggest_for_owned(self, alias: Alias, path: str, value: object) -> str:
        if fix := moved_nodes.suggest_moved_node(
            alias.group, value, self.groups, self.fields, self._suggest_missing_arguments
        ):
            return fix
        if (
            alias.group and isinstance(value, dict) and "_target_" not in value
        ):  # settings of an object, and not which one
            settings = [
                self._suggest_override(join_path(alias.group, str(key)), item, exists=True)
                for key, item in value.items()
            ]
            return " ".join(settings) if all(settings) else ""
        advice = render_alias(alias, path, value, self.names)
        return advice.fix if advice else ""

    def _find_missing_arguments(self, node: Node, signature: Signature, supplied: frozenset[str]) -> list[str]:
        """Return the required arguments that nothing provides."""
        # Missing arguments come later, or are given by position.
        if node.value.get("_partial_") is True or "_args_" in node.value:
            return []
        typos = [
            str(key) for key in node.value if key not in signature.named
        ]  # reported as unknown, with this name as fix
        return [
            name
            for name, parameter in signature.named.items()
            if parameter.required and not (name in node.value or name in supplied or find_nearest(name, typos))
        ]

    def _check_missing_arguments(
        self, node: Node, signature: Signature, supplied: frozenset[str]
    ) -> Iterator[MLScaleError]:
        missing = self._find_missing_arguments(node, signature, supplied)
        if missing and (twin := self._find_twin(node)):
            path = join_path(node.path, "_target_")
            yield MLScaleError(
                f"'{node.path}' lacks {', '.join(missing)}",
                where=self.describe_origin(path),
                why=f"'{twin}' builds the same",
                fix=format_override(join_path(twin, "_target_"), node.target),
            )
            return
        for name in missing:
            yield MLScaleError(
                f"'{join_path(node.path, name)}' is missing",
                where=self.describe_origin(join_path(node.path, "_target_")),
                why=f"{node.target} requires '{name}'",
                fix=_suggest_argument(node, name),
            )

    def _find_twin(self, node: Node) -> str:
        """Return the entry that a misspelt one was meant to be: `logger.csvv._target_=…` next to `logger.csv`."""
        group, _, entry = node.path.rpartition(".")
        alike = [path for path, other in self._nodes.items() if other.target == node.target and path != node.path]
        names = [path.rpartition(".")[2] for path in alike if path.rpartition(".")[0] == group in rules.BUILDS_SEVERAL]
        near = find_nearest(entry, names)
        return join_path(group, near) if near else ""

    def _suggest_missing_arguments(self, node: Node) -> Iterator[str]:
        """Yield the overrides for the required arguments that a node does not have."""
        # As a full call: with `_partial_` every argument may be missing, and nothing would be reported.
        node = replace(node, value={**node.value, "_partial_": False})
        signature, supplied = node.signature, rules.SUPPLIED.get(node.path.partition(".")[0], frozenset())
        if isinstance(signature, Signature):
            yield from (
                _suggest_argument(node, name) for name in self._find_missing_arguments(node, signature, supplied)
            )


def _suggest_argument(node: Node, name: str) -> str:
    """Return the override that gives a required argument: a fact of the data, or a placeholder."""
    path, kinds, fact = join_path(node.path, name), node.get_types(name), rules.FACTS.get(name)
    return f"'{path}=${{derived.{fact}}}'" if fact else f"{path}=<{kinds[0].text if kinds else 'value'}>"


def _suggest_in_file(path: str, fix: str) -> str:
    """Return the fix for a key in a file: an override alone would leave the key there."""
    head, _, last = path.rpartition(".")
    key = fix.partition("=")[0]
    if fix.startswith("leave "):
        return fix
    if fix.count("=") == 1 and "." in key and key.rpartition(".")[0] == head:
        return f"write '{key.rpartition('.')[2]}' in place of '{last}'"
    return f"{fix}, and take '{path}' out of the file" if fix else f"take '{path}' out of the file"
