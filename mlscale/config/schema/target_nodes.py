"""A node of the config that builds an object: its `_target_`, the signature behind it, and its documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from mlscale.config.schema.documented_fields import Field, Fields
from mlscale.config.schema.key_owners import BUILDS_SEVERAL
from mlscale.config.schema.value_ranges import RANGES
from mlscale.config.schema.value_types import (
    FINITE,
    FLOAT,
    NONE,
    Type,
    allow_nonfinite,
    infer_from_default,
    make_tuple_type,
    make_union,
    parse_annotation,
)
from mlscale.config.signatures.signatures import NO_LITERAL, Parameter, Signature, Unknown, read_signature
from mlscale.errors import MLScaleError

_NEED_FINITE = frozenset({"mlscale", "torch", "torchvision", "timm", "pytorch_lightning", "lightning"})
_TRANSFORMS = "torchvision.transforms."
_PAIRS = frozenset({"scale", "ratio", "translate"})  # of these transforms: annotated as a sequence of any length
_PAIR = make_union(make_tuple_type(FLOAT, FLOAT), NONE)
_ORDERS = frozenset({"norm_type", "ord", "p"})  # the order of a norm, which may be infinite


@dataclass(frozen=True)
class Node:
    """A dictionary with a `_target_`, at its key path."""

    path: str
    value: dict[str, object]
    fields: Fields
    imported: Signature | Unknown | None = None  # if its source is not certain

    @property
    def target(self) -> str:
        target = self.value.get("_target_")
        return target if isinstance(target, str) else ""

    @cached_property
    def signature(self) -> Signature | Unknown:
        if self.imported is not None:
            return self.imported
        if "${" in self.target:
            return Unknown(self.target, "", "an interpolation")
        if "." not in self.target or not self.target.replace(".", "").replace("_", "").isalnum():
            return Unknown(self.target, "_target_", "a _target_ is a dotted path: package.module.Class")
        return read_signature(self.target)

    @property
    def paths(self) -> list[str]:
        """The key paths that may be set in this node: those it has, then its other parameters."""
        signature = self.signature
        taken = signature.named if isinstance(signature, Signature) else {}
        # Without a signature every key of the node may be right; with one only those that it names.
        unknown = not taken and not (isinstance(signature, Signature) and not signature.open)
        own = [key for key in self.value if not key.startswith("_") and (key in taken or unknown)]
        documented = [path.removeprefix(f"{self.path}.") for path in self.documented]
        return [join_path(self.path, name) for name in dict.fromkeys([*own, *documented, *taken])]

    @property
    def documented(self) -> Mapping[str, Field]:
        """The fields that the shipped YAML documents for this node, by full path."""
        return self.fields.get_node_fields(self.path, self.target)

    def get_field(self, key: str) -> Field | None:
        """Return the field that the shipped YAML documents for this key and target."""
        return self.fields.get_node_fields(self.path, self.target).get(join_path(self.path, key))

    def get_types(self, key: str) -> list[Type]:
        """Return the types that a value must have, all of them; the range of a well-known key is the last.

        The annotation counts; the comment's word does where there is none that is understood, and where it names values
        that the annotation can't distinguish (`int or auto`, `path`).
        """
        kinds, ranged = self._kinds(key), RANGES.get(join_path(self.path, key))
        if key in _PAIRS and self.target.startswith(_TRANSFORMS) and kinds and kinds[0].accepts([0.5, 1.0]):
            kinds = [_PAIR]
        built_in = self.target.partition(".")[0] in _NEED_FINITE  # a class of the user's may take -1
        return [*kinds, ranged] if ranged is not None and built_in else kinds

    def _kinds(self, key: str) -> list[Type]:
        parameter = self.signature.named.get(key) if isinstance(self.signature, Signature) else None
        annotated = _derive_annotated_type(parameter)
        if annotated is not None and self._can_be_infinite(key, parameter):
            annotated = allow_nonfinite(annotated)
        field = self.get_field(key)
        commented = field.type if field is not None and field.word else None
        if commented is not None and annotated is not None:
            # A comment may narrow an annotation (`str` to `one of max, min`), but must not contradict it: both are
            # checked.
            schema = str(commented.schema)
            bounded = "minimum" in schema and ("int" in annotated.text or "float" in annotated.text)
            narrower = "enum" in schema or "pattern" in schema or bounded or "any" in annotated.text
            return [annotated, commented] if narrower else [annotated]
        kinds = [kind for kind in (annotated, commented) if kind is not None]
        if not kinds and self.path in ("optimizer", "scheduler") and not self._can_be_infinite(key, parameter):
            return [FINITE]  # their numbers have annotations like `Union[float, Tensor]`
        return kinds

    def _can_be_infinite(self, key: str, parameter: Parameter | None) -> bool:
        """Return whether NaN or infinity may be valid: for a user's own code, or where the default may be one."""
        computed = parameter is not None and not parameter.required and parameter.default is NO_LITERAL
        return self.target.partition(".")[0] not in _NEED_FINITE or key in _ORDERS or computed

    def create_not_found_error(self, where: Callable[[str], str]) -> MLScaleError:
        """Return the message for a target that does not exist."""
        assert isinstance(self.signature, Unknown)
        path = join_path(self.path, "_target_")
        fix = self.signature.better
        head = self.target.partition(".")[0] or "<package>"
        # A command that measures or exports does without a tracker whose package was removed meanwhile.
        is_entry = self.path.partition(".")[0] in BUILDS_SEVERAL and self.path.count(".") == 1
        without = f"~{self.path}, which leaves it out; or " if is_entry else ""
        return MLScaleError(
            f"the _target_ of '{self.path}' does not exist: {self.target or self.value.get('_target_')}",
            where=where(path),
            why=self.signature.why,
            fix=f"{path}={fix or '<package.module.Class>'}"
            if fix or self.signature.missing != head
            else f"{without}cd <the folder that holds {head}>, or install {head}",
        )


def _derive_annotated_type(parameter: Parameter | None) -> Type | None:
    """Return the type of a parameter's annotation and default: `size: int = None` takes null, not only an int."""
    annotated_type = parse_annotation(parameter.annotation) if parameter and parameter.annotation else None
    if parameter is None or annotated_type is None or parameter.default is NO_LITERAL:
        return annotated_type
    default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return (
        annotated_type
        if annotated_type.accepts(default)
        else make_union(annotated_type, infer_from_default(default) or NONE)
    )


def join_path(head: str, last: str) -> str:
    return f"{head}.{last}" if head else last


def iterate_outermost_nodes(tree: object, path: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the outermost dictionaries with a `_target_` below `tree`, with their key paths; not those inside them."""
    children: list[tuple[str, object]] = []
    if isinstance(tree, dict):
        children = [(join_path(path, str(key)), value) for key, value in tree.items()]
    elif isinstance(tree, list):
        children = [(f"{path}[{index}]", value) for index, value in enumerate(tree)]
    for name, value in children:
        if isinstance(value, dict) and "_target_" in value:
            yield name, value
        else:
            yield from iterate_outermost_nodes(value, name)


def iterate_nodes(tree: object, path: str, fields: Fields) -> Iterator[Node]:
    """Yield every node with a `_target_` below `tree`, at any depth."""
    for name, value in iterate_outermost_nodes(tree, path):
        yield Node(name, value, fields)
        yield from iterate_nodes(value, name, fields)
