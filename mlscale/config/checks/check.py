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
from mlscale.config.checks.target_nodes import Node, all_nodes, inside, join
from mlscale.config.checks.templates import Advice, Names
from mlscale.config.checks.value_types import BOOL, Type
from mlscale.config.checks.values import missing, wrong_resolved, wrong_type
from mlscale.config.composition.interpolations import resolved, unresolvable
from mlscale.config.composition.roots import BASE_GROUPS, SERVICE_GROUPS, VERB_CONFIGS
from mlscale.config.documented_fields import MISSING, Field, shipped
from mlscale.config.signatures.imported_targets import extends_mlscale, imported_signature, may_differ
from mlscale.config.signatures.signatures import Kind, Parameter, Signature, Unknown
from mlscale.config.suggestions import not_yet
from mlscale.config.suggestions.foreign_names import Alias, table
from mlscale.config.suggestions.near_keys import with_value
from mlscale.config.suggestions.suggest import nearest, override
from mlscale.config.suggestions.unknown_keys import advise, render, takes
from mlscale.errors import MLScaleError

_FEW = 12  # names that a message can hold


def check(
    cfg: DictConfig,
    *,
    groups: Mapping[str, Sequence[str]],
    origin: Callable[[str], str] | None = None,
    verb: str = "train",
    left_over: dict[str, list[str]] | None = None,
) -> list[MLScaleError]:
    """Return every problem of a composed, unresolved config that can be found without importing its targets.

    Args:
        groups: every config group with its options.
        origin: returns the file or override that set a key path; called only where there is a problem.
        verb: the command, whose own keys are allowed at the top.
        left_over: filled with the keys, by the path of their object, that an option's file sets and that the target
            which was typed instead of the file's does not take: they are not a problem, but must be left out.
    """
    checking = _Check(cfg, groups, origin, verb)
    problems = list(checking.problems())
    if left_over is not None:
        left_over.update(checking.left_over)
    return problems


class _Check:
    """One config under check; each method yields the problems of what it is named for."""

    def __init__(
        self, cfg: DictConfig, groups: Mapping[str, Sequence[str]], origin: Callable[[str], str] | None, verb: str
    ) -> None:
        self.cfg, self.groups, self.origin, self.verb = cfg, groups, origin, verb
        tree = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(tree, dict)
        self.tree: dict[str, object] = {str(key): value for key, value in tree.items() if key != "hydra"}
        self.fields = shipped()
        self.left_over: dict[str, list[str]] = {}
        self.known: dict[str, Node] = {}  # by key path, with the signatures of imported targets
        self.wrong: set[str] = set()  # `${key}` of the keys that were reported
        self.interpolated: list[tuple[str, str, Sequence[Type], Field | None, Parameter | None]] = []
        self.top = self.fields.of_verb(verb)

    def problems(self) -> Iterator[MLScaleError]:
        first = {group.partition("/")[0] for group in self.groups}
        first |= set(BASE_GROUPS if VERB_CONFIGS[self.verb] == "run" else SERVICE_GROUPS)
        groups = first - rules.GLOBAL
        top = {path.partition(".")[0] for path in self.top}
        for key, value in self.tree.items():
            if key == "derived" and isinstance(value, dict):
                yield from self._derived(value)
            elif key in groups:
                yield from self._group(key, value)
            elif key in top:
                yield from self._plain(key, value)
            else:
                yield from self._unknown(key, value)
        yield from self._resolved()
        yield from unresolvable(self.cfg, list(self.names.paths), self.where)

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
            for path in self.fields.of(group)
        ]
        trainer = self.tree.get("trainer")
        given = trainer if isinstance(trainer, dict) else {}
        counts = [given.get(key) for key in ("devices", "accumulate_grad_batches")]
        batches = prod(count for count in counts if isinstance(count, int) and count > 0)
        return Names(dict.fromkeys(paths), self.groups, batches, self._types)

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        return {node.path: node for node in all_nodes(self.tree, "", self.fields)}

    def _types(self, path: str) -> Sequence[Type]:
        """Return the types that the value of a key must have, where they are known."""
        head = path
        while head := head.rpartition(".")[0]:
            if node := self._nodes.get(head):
                return node.types(path.removeprefix(f"{head}."))
        field = self.top.get(path) or self.fields.get(path)
        return [field.type] if field is not None and field.type is not None else []

    def where(self, path: str) -> str:
        """Return the override or the file that set a key, and the key."""
        source = self.origin(path) if self.origin else ""
        if not source or source.startswith(COMMAND_LINE):
            return source or path
        return f"{source}: {path}"

    def _in_file(self, path: str) -> bool:
        return self.origin is not None and not self.origin(path).startswith(COMMAND_LINE)

    def _unknown(self, path: str, value: object, why: str = "") -> Iterator[MLScaleError]:
        """Yield the problem of a key that nothing takes; of a dictionary, one for each of its leaves."""
        # By its leaves: each of them may be a misspelt key of its own.
        alias = table().get(path)
        if isinstance(value, dict) and value and "_target_" not in value and not self._is_value(alias, value):
            for key, item in value.items():
                yield from self._unknown(join(path, str(key)), item, why)
            return
        what = f"unknown key '{path}'"
        # `batch=32` of a training run is what it is elsewhere, though `mlscale loadtest` has a key of this name.
        brought = self.verb == "train" and alias is not None and not alias.unsupported
        # A key of another command is valid, only in the wrong place: a near name would be a wrong suggestion.
        for verb in VERB_CONFIGS:
            if verb != self.verb and path in self.fields.own(verb) and not brought:
                why = f"it is a key of `mlscale {verb}`"
                yield MLScaleError(what, where=self.where(path), why=why, fix=f"mlscale {verb} {override(path, value)}")
                return
        free = alias is not None and takes(alias, value, self.names)  # `run_name=yolo` is a name
        if feature := not_yet.of_key(path) or (
            None if free else not_yet.of_value(value, alias.group if alias is not None else "")
        ):
            yield feature.error(override(path, value), self.where(path))
            return
        advice = self._moved(path, value) or advise(path, value, self.names)
        fix = advice.fix if advice else ""
        if self._in_file(path):
            fix = _in_place(path, fix)
        why = (advice.why if advice else "") or why
        yield MLScaleError(what, where=self.where(path), why=why, fix=fix or self._every_key(path))

    def _is_value(self, alias: Alias | None, value: dict[str, object]) -> bool:
        """Return whether a dictionary is the value of a foreign name, not settings below it: `max_time={hours:1}`."""
        if alias is None:
            return False
        return not all(isinstance(key, str) for key in value) or takes(alias, value, self.names)

    def _moved(self, path: str, value: object) -> Advice | None:
        """Return the fix for an object that was typed where another group owns it: `model.optimizer._target_=…`."""
        last, alias = path.rpartition(".")[2], table().get(path)
        group = last if last in self.groups else alias.group if alias is not None else ""
        fix = moved_nodes.moved(group, value, self.groups, self.fields, self._lacked_by)
        return Advice(fix, f"the group '{group}' owns it") if fix else None

    def _advised(self, path: str, value: object, *, exists: bool = False) -> str:
        if exists and path in self.names.paths:
            return with_value(path, value, self.names)
        advice = advise(path, value, self.names)
        return advice.fix if advice else ""

    def _every_key(self, path: str) -> str:
        """Return the sibling keys as a fix where no name is near, or the command that prints them all."""
        head = path.rpartition(".")[0]
        there = [item for item in self.names.paths if head and item.rpartition(".")[0] == head]
        few = 0 < len(there) <= _FEW
        return f"there are: {', '.join(there)}" if few else "mlscale config show prints every key there is"

    def _derived(self, node: dict[str, object]) -> Iterator[MLScaleError]:
        for key, value in node.items():
            path = join("derived", key)
            # The base has these keys with their defaults: only a changed value was typed.
            if path in self.top and value == self.top[path].default:
                continue
            decides = rules.DERIVED_FROM.get(key)
            yield MLScaleError(
                f"'{path}' is filled in at start, never set by hand",
                where=self.where(path),
                why=f"{decides} decides it" if decides else "it comes from the data and the machine",
                fix=f"{decides}=<value>" if decides else f"leave {path} out",
            )

    def _plain(self, path: str, value: object) -> Iterator[MLScaleError]:
        """Yield the problems of a documented key that belongs to no object."""
        field = self.top.get(path) or self.fields.get(path)
        if field is None and isinstance(value, dict):  # a command's settings are in one mapping: estimate.instance
            for key, item in value.items():
                name = join(path, str(key))
                known = name in self.top or any(other.startswith(f"{name}.") for other in self.top)
                yield from self._plain(name, item) if known else self._unknown(name, item)
        elif value == MISSING:
            yield missing(path, field, self.where(path))
        elif field is not None and field.type is not None:
            yield from self._typed(path, value, [field.type], field)

    def _typed(
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
        for problem in wrong_type(path, value, types, field, parameter, self.where):
            self.wrong.add("${" + path + "}")
            feature = not_yet.of_value(value)
            yield feature.error(override(path, value), self.where(path)) if feature else problem

    def _resolved(self) -> Iterator[MLScaleError]:
        """Yield the problems of interpolations of the wrong type. One that repeats a key is checked after that key, so
        that a problem is reported once.
        """
        keys = {"${" + path + "}" for path, *_ in self.interpolated}
        for path, raw, types, field, parameter in sorted(self.interpolated, key=lambda item: item[1] in keys):
            value = None if raw in self.wrong else resolved(self.cfg, path)
            problems = list(wrong_resolved(path, raw, value, types, field, parameter, self.where))
            if problems or raw in self.wrong:
                self.wrong.add("${" + path + "}")
            yield from problems

    def _group(self, name: str, value: object) -> Iterator[MLScaleError]:
        supplied = rules.SUPPLIED.get(name, frozenset())
        # Empty by an option `none`, or an interpolation of another node, which is checked there.
        if not value or (isinstance(value, str) and "${" in value):
            return
        if not isinstance(value, dict):
            yield group_nodes.not_a_node(name, value, self.groups, self.where)
        elif "_target_" in value:
            yield from self._node(Node(name, value, self.fields), supplied)
        elif name in rules.BUILDS_SEVERAL:
            advised = partial(advise, names=self.names)
            yield from group_nodes.without_target(name, value, self.groups, self.where, advised)
            yield from self._inside(name, value)
        # Lightning's lr_scheduler dictionary, for schedulers that do not step by optimizer steps.
        elif name == "scheduler" and "scheduler" in value:
            yield from group_nodes.lightning_scheduler(value, self.where)
            for path, item in inside(value, name):
                yield from self._node(Node(path, item, self.fields), supplied)
        elif name in rules.BUILDS_ONE:
            yield from group_nodes.nothing_to_set(name, value, self.fields, self.where, self._advised)
        elif known := self.fields.of(name):
            for key, item in value.items():
                path = join(name, str(key))
                yield from self._plain(path, item) if path in known else self._unknown(path, item)
        else:
            yield from self._inside(name, value)

    def _inside(self, path: str, value: object) -> Iterator[MLScaleError]:
        for name, item in inside(value, path):
            yield from self._node(Node(name, item, self.fields), frozenset())

    def _node(self, node: Node, supplied: frozenset[str]) -> Iterator[MLScaleError]:
        """Yield the problems of one object: its target, its keys, missing arguments; then those of the objects inside
        it.
        """
        inner = node.value
        if node.value.get(rules.CHECK) is not False:
            self.known[node.path] = known = self._known(node, supplied)
            yield from self._own(known, supplied)
            # Objects below a refused key would only repeat its problem.
            inner = {key: value for key, value in inner.items() if not self._is_refused(known, key)}
        yield from self._inside(node.path, inner)

    def _is_refused(self, node: Node, key: str) -> bool:
        """Return whether the node does not take this key at all, which its own problem reports."""
        signature = node.signature
        unknown = isinstance(signature, Signature) and not signature.open and key not in signature.named
        return join(node.path, key) in rules.OWNED or (unknown and key not in rules.NODE_KEYS)

    def _known(self, node: Node, supplied: frozenset[str]) -> Node:
        """Return the node with the signature of its imported target, if its source is not certain about something that
        would be refused or left out.
        """
        found = node.signature
        # Importing third-party code is slow and may have side effects: done only where source leaves a doubt that would
        # lead to a refusal.
        doubt = True
        if isinstance(found, Signature):
            unread = found.open and not any(item.kind is Kind.VAR_KEYWORD for item in found.parameters)
            doubt = unread or (found.open and bool(self._required(node, found, supplied)))
        imported = imported_signature(node.target) if doubt and may_differ(node.target) else None
        if isinstance(found, Unknown) and isinstance(imported, Unknown) and (found.better or not imported.better):
            return node if found.missing else replace(node, imported=imported)
        return replace(node, imported=imported)

    def _own(self, node: Node, supplied: frozenset[str]) -> Iterator[MLScaleError]:
        """Yield the problems of the node itself."""
        signature = node.signature
        if isinstance(signature, Signature):
            left = self._left_over(node, signature)
            if left:
                self.left_over[node.path] = left
            for key, value in node.value.items():
                if key == rules.CHECK:
                    yield from self._typed(join(node.path, key), value, [BOOL], None)
                elif key not in rules.NODE_KEYS and key not in left:
                    yield from self._argument(node, signature, key, value)
            yield from self._lacking(node, signature, supplied)
        elif signature.missing:
            yield node.not_found(self.where)

    def _argument(self, node: Node, signature: Signature, key: str, value: object) -> Iterator[MLScaleError]:
        path, parameter = join(node.path, key), signature.named.get(key)
        if path in rules.OWNED:
            yield self._owned(path, value)
        elif parameter is None and not signature.open:
            yield from self._unknown(path, value, f"{node.target} takes no '{key}'")
        elif value == MISSING:
            yield missing(path, node.field(key), self.where(path), parameter)
        else:
            yield from self._typed(path, value, node.types(key), node.field(key), parameter)
            yield from self._nested(node, path, value)

    def _nested(self, node: Node, path: str, value: object) -> Iterator[MLScaleError]:
        """Yield the problems of the keys of a documented dictionary: `callbacks.notify.mail.host`."""
        known = {name: field for name, field in node.documented.items() if name.startswith(f"{path}.")}
        if not known or not isinstance(value, dict):
            return
        for key, item in value.items():
            name = join(path, str(key))
            if name not in known:
                yield from self._unknown(name, item, f"'{path}' takes no '{key}'")
            elif kind := known[name].type:
                yield from self._typed(name, item, [kind], known[name])

    def _left_over(self, node: Node, signature: Signature) -> list[str]:
        """Return the keys of an option's file that do not suit the target which was typed instead of the file's: those
        that its signature does not name, with or without `**kwargs`, and those for which third-party data, modules and
        strategies have defaults of their own with another meaning.
        """
        # A subclass of a built-in class passes its `**kwargs` to that class.
        if signature.open and extends_mlscale(node.target):
            return []  # its `**kwargs` go to a class that takes them
        theirs: frozenset[str] = frozenset()
        if not str(node.target).startswith("mlscale."):
            theirs = rules.KEEP_THEIR_DEFAULTS.get(node.path, theirs)
        named = signature.named
        known = self._documented(node) if signature.open else frozenset()
        keys = [key for key in map(str, node.value) if key not in rules.NODE_KEYS and key not in known]
        unsuited = [key for key in keys if key not in named or (key in theirs and not named[key].required)]
        # What was typed is known at once; only for a key out of a file are the files read again.
        left = [key for key in unsuited if self.origin is not None and self._in_file(join(node.path, key))]
        # A target in a file comes with the keys next to it: there an unsuited key is a mistake, and reported as one.
        return left if left and not self._in_file(join(node.path, "_target_")) else []

    def _documented(self, node: Node) -> frozenset[str]:
        """Return the keys of shipped options for targets of the same package: torchvision's and timm's builders pass
        their `**kwargs` to a network that takes them.
        """
        package = node.target.partition(".")[0]
        options = [item for item in self.fields.options if item.package == node.path]
        alike = [item for item in options if (item.target or "").partition(".")[0] == package]
        return frozenset(field.path.rpartition(".")[2] for item in alike for field in item.fields)

    def _owned(self, path: str, value: object) -> MLScaleError:
        owner = rules.OWNED[path]
        if feature := not_yet.of_value(value, owner.alias.group):
            return feature.error(override(path, value), self.where(path))
        fix = self._fix_of_owned(owner.alias, path, value) or f"leave {path} out"
        if self._in_file(path):
            fix = _in_place(path, fix)
        return MLScaleError(f"'{path}' is not set here", where=self.where(path), why=owner.why, fix=fix)

    def _fix_of_owned(self, alias: Alias, path: str, value: object) -> str:
        if fix := moved_nodes.moved(alias.group, value, self.groups, self.fields, self._lacked_by):
            return fix
        if (
            alias.group and isinstance(value, dict) and "_target_" not in value
        ):  # settings of an object, and not which one
            settings = [self._advised(join(alias.group, str(key)), item, exists=True) for key, item in value.items()]
            return " ".join(settings) if all(settings) else ""
        advice = render(alias, path, value, self.names)
        return advice.fix if advice else ""

    def _required(self, node: Node, signature: Signature, supplied: frozenset[str]) -> list[str]:
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
            if parameter.required and not (name in node.value or name in supplied or nearest(name, typos))
        ]

    def _lacking(self, node: Node, signature: Signature, supplied: frozenset[str]) -> Iterator[MLScaleError]:
        for name in self._required(node, signature, supplied):
            yield MLScaleError(
                f"'{join(node.path, name)}' is missing",
                where=self.where(join(node.path, "_target_")),
                why=f"{node.target} requires '{name}'",
                fix=_given(node, name),
            )

    def _lacked_by(self, node: Node) -> Iterator[str]:
        """Yield the overrides for the required arguments that a node does not have."""
        # As a full call: with `_partial_` every argument may be missing, and nothing would be reported.
        node = replace(node, value={**node.value, "_partial_": False})
        signature, supplied = node.signature, rules.SUPPLIED.get(node.path.partition(".")[0], frozenset())
        if isinstance(signature, Signature):
            yield from (_given(node, name) for name in self._required(node, signature, supplied))


def _given(node: Node, name: str) -> str:
    """Return the override that gives a required argument: a fact of the data, or a placeholder."""
    path, kinds, fact = join(node.path, name), node.types(name), rules.FACTS.get(name)
    return f"'{path}=${{derived.{fact}}}'" if fact else f"{path}=<{kinds[0].text if kinds else 'value'}>"


def _in_place(path: str, fix: str) -> str:
    """Return the fix for a key in a file: an override alone would leave the key there."""
    head, _, last = path.rpartition(".")
    key = fix.partition("=")[0]
    if fix.startswith("leave "):
        return fix
    if fix.count("=") == 1 and "." in key and key.rpartition(".")[0] == head:
        return f"write '{key.rpartition('.')[2]}' in place of '{last}'"
    return f"{fix}, and take '{path}' out of the file" if fix else f"take '{path}' out of the file"
