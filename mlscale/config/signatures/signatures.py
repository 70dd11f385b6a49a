"""Signatures of `_target_`s, read from source, so that a config is checked before torch is imported.

The result equals `inspect.signature` where the source is certain; else the signature is `open`: what it lists is
known, what it doesn't list may still be taken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from inspect import _ParameterKind as Kind
from typing import Final

from mlscale.config.names.suggest import compute_distance, find_nearest, get_edit_limit
from mlscale.config.signatures import source_names as source
from mlscale.config.signatures.source_names import Class, Function, NoModuleError, NoNameError, UnreadableError
from mlscale.config.signatures.source_scope import FunctionNode, get_last_name
from mlscale.config.signatures.unpacked_keywords import read_unpacked_keywords

__all__ = ["NO_LITERAL", "Kind", "Parameter", "Signature", "Unknown", "read_signature"]


class _NoLiteral:
    def __repr__(self) -> str:
        return "NO_LITERAL"


NO_LITERAL: Final = _NoLiteral()
"""Stands for a default that is not a literal, or for none at all."""

# Bases whose own source need not be read.
_PLAIN_BASES = frozenset({"object", "ABC", "Generic", "Protocol"})


# Packages whose classes configs build.
_ROOTS = (
    "mlscale", "torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "timm", "transformers",
)  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """One parameter: `annotation` is its text as written, `default` the literal, NO_LITERAL where it is none."""

    name: str
    kind: Kind
    required: bool
    annotation: str | None = None
    default: object = NO_LITERAL


@dataclass(frozen=True)
class Signature:
    """The parameters of a target. `open`: it may take more than is listed (`**kwargs`, compiled bases, unknown
    decorators).
    """

    target: str
    parameters: tuple[Parameter, ...]
    open: bool = False

    @property
    def named(self) -> dict[str, Parameter]:
        """The parameters that a config may set by name."""
        settable = (Kind.POSITIONAL_OR_KEYWORD, Kind.KEYWORD_ONLY)
        return {item.name: item for item in self.parameters if item.kind in settable}


@dataclass(frozen=True)
class Unknown:
    """A target without a signature.

    Attributes:
        missing: the part of the path that fails, or "" if the target may exist and its source does not show it.
        why: one sentence.
        better: the nearest target that exists, or None.
    """

    target: str
    missing: str
    why: str
    better: str | None = None


@cache
def read_signature(target: str) -> Signature | Unknown:
    """Return the signature of a dotted path: a class, a function, or a method of a class.

    Never raises; takes 3 to 30 ms for each source file that it reads for the first time.
    """
    try:
        resolved = source.find_object(target)
        if isinstance(resolved, source.Module):
            return Unknown(
                target, target, f"'{target}' is a module, not a class or function", _suggest_member(target, resolved)
            )
        parameters, is_open = (
            _read_class_parameters(resolved) if isinstance(resolved, Class) else _read_function_parameters(resolved)
        )
    except NoModuleError as error:
        return _report_missing_module(target, error)
    except NoNameError as error:
        why = f"'{error.holder}' has no '{error.missing}'"
        better = find_nearest(error.missing, error.names)
        return Unknown(target, error.missing, why, _complete_target(_replace_part(target, error.missing, better)))
    except UnreadableError as error:
        # `missing` is empty: the target may exist, so it is not an error yet.
        return Unknown(target, "", str(error))
    return Signature(target, tuple(parameters), is_open)


def _report_missing_module(target: str, error: NoModuleError) -> Unknown:
    parent, _, last = error.missing.rpartition(".")
    if not parent:
        why = f"no package or module '{last}' in this folder or this environment"
        return Unknown(target, last, why, _correct_root(target) if target.partition(".")[0] == last else None)
    why = f"the package '{parent}' has no module '{last}'"
    return Unknown(target, last, why, _complete_target(_replace_part(target, last, find_nearest(last, error.siblings))))


def _complete_target(target: str | None) -> str | None:
    """Return a corrected target, with what else is wrong in it corrected; None for a module, which can't be built."""
    signature = read_signature(target) if target else None
    if not isinstance(signature, Unknown):
        return target
    return signature.better if signature.better or signature.missing == target else target


def _correct_root(target: str) -> str | None:
    """Return a target whose package is misspelt, with the nearest package that has the rest: `torcv.optim.SGD`."""
    typed, _, rest = target.partition(".")
    limit = get_edit_limit(typed)
    near = sorted((cost, root) for root in _ROOTS if (cost := compute_distance(typed.lower(), root, limit)) <= limit)
    for _, root in near:
        if root != typed and _exists(root) and isinstance(read_signature(f"{root}.{rest}"), Signature):
            return f"{root}.{rest}"
    return None


def _exists(package: str) -> bool:
    try:
        source.find_module(package)
    except (NoModuleError, UnreadableError):
        return False
    return True


def _replace_part(target: str, part: str, better: str | None) -> str | None:
    if better is None:
        return None
    parts = target.split(".")
    # Reached through a re-export: the missing part is not in the typed path.
    if part not in parts:
        return None
    parts[parts.index(part)] = better
    return ".".join(parts)


def _suggest_member(target: str, module: source.Module) -> str | None:
    """Return the class in a module that is named like it: `torch.optim.sgd.SGD` for `torch.optim.sgd`."""
    last = target.rpartition(".")[2].replace("_", "")
    try:
        names = [name for name, node in module.bindings.items() if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    except UnreadableError:
        return None
    match = next((name for name in names if name.lower() == last), None)
    return f"{target}.{match}" if match else None


def _read_class_parameters(cls: Class) -> tuple[list[Parameter], bool]:
    fields_open = False
    for item in source.iterate_mro(cls):
        # Before `__init__` of a base: a dataclass decorator writes one into the class itself.
        if _is_dataclass(item) and "__init__" not in item.members:
            parameters, fields_open = _read_dataclass_fields(cls)
            return parameters, fields_open or is_constructor_changed(cls)
        for name in ("__new__", "__init__"):
            node = item.members.get(name)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                parameters, is_open = _read_function_parameters(Function(item.module, node, item))
                # `__new__(cls, *args, **kwargs)` only passes its arguments on: the `__init__` of the same class names
                # them.
                if name == "__new__" and _is_pass_through(parameters) and "__init__" in item.members:
                    continue
                return parameters, is_open or is_constructor_changed(cls)
        if _has_hidden_base(item):
            return [], True
    return [], is_constructor_changed(cls)


def _is_pass_through(parameters: list[Parameter]) -> bool:
    return all(item.kind in (Kind.VAR_POSITIONAL, Kind.VAR_KEYWORD) for item in parameters)


def _has_hidden_base(cls: Class) -> bool:
    """Return whether a base of this class is compiled or made at run time, so that its `__init__` is unknown."""
    for base in cls.node.bases:
        if get_last_name(base.value if isinstance(base, ast.Subscript) else base) in _PLAIN_BASES:
            continue
        try:
            if not isinstance(source.resolve_expression(cls.module, base), Class):
                return True
        except (NoModuleError, NoNameError, UnreadableError):
            return True
    return False


def _read_function_parameters(function: Function) -> tuple[list[Parameter], bool]:
    node, names = function.node, {get_last_name(item) for item in function.node.decorator_list}
    parameters = list(_iterate_parameters(node.args))
    constructor = node.name in ("__init__", "__new__")
    # `self` or `cls` is not an argument of the call.
    if function.owner is not None and (constructor or "classmethod" in names) and "staticmethod" not in names:
        parameters = parameters[1:]
    variadic = node.args.kwarg.annotation if node.args.kwarg else None
    if (items := read_unpacked_keywords(function.module, variadic)) is not None:
        parameters[-1:] = [Parameter(item.name, Kind.KEYWORD_ONLY, item.required, item.annotation) for item in items]
    is_open = any(item.kind is Kind.VAR_KEYWORD for item in parameters)
    return parameters, is_open or is_signature_changed(function.module, node.decorator_list)


def _iterate_parameters(args: ast.arguments) -> Iterator[Parameter]:
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    defaults += args.defaults
    for index, (arg, default) in enumerate(zip(positional, defaults, strict=True)):
        kind = Kind.POSITIONAL_ONLY if index < len(args.posonlyargs) else Kind.POSITIONAL_OR_KEYWORD
        yield _build_parameter(arg, kind, default)
    if args.vararg:
        yield _build_parameter(args.vararg, Kind.VAR_POSITIONAL, None, required=False)
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield _build_parameter(arg, Kind.KEYWORD_ONLY, default)
    if args.kwarg:
        yield _build_parameter(args.kwarg, Kind.VAR_KEYWORD, None, required=False)


def _build_parameter(arg: ast.arg, kind: Kind, default: ast.expr | None, *, required: bool = True) -> Parameter:
    annotation = ast.unparse(arg.annotation) if arg.annotation else None
    return Parameter(arg.arg, kind, required and default is None, annotation, _evaluate_literal(default))


def _evaluate_literal(node: ast.expr | None) -> object:
    if node is None:
        return NO_LITERAL
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return NO_LITERAL


def _is_dataclass(cls: Class) -> bool:
    return any(get_last_name(item) == "dataclass" for item in cls.node.decorator_list)


def _read_dataclass_fields(cls: Class) -> tuple[list[Parameter], bool]:
    """Return the parameters of a dataclass's `__init__`, bases first, and whether a base is hidden."""
    by_name: dict[str, Parameter] = {}
    is_open = False
    # Bases first, as dataclasses order their fields; a field that is declared again keeps its place.
    for item in reversed(list(source.iterate_mro(cls))):
        is_open |= _has_hidden_base(item)
        if not _is_dataclass(item):
            continue
        keyword_only = any(_has_flag(decorator, "kw_only") for decorator in item.node.decorator_list)
        for node in item.node.body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            annotation = ast.unparse(node.annotation)
            if annotation.endswith("KW_ONLY"):
                keyword_only = True
            elif "ClassVar" not in annotation:
                _add_field(by_name, node.target.id, annotation, node.value, keyword_only=keyword_only)
    # dataclasses move keyword-only fields to the end of `__init__`. Sorting is stable, so the rest keeps its order.
    ordered = sorted(by_name.values(), key=lambda parameter: parameter.kind is Kind.KEYWORD_ONLY)
    return ordered, is_open


def _add_field(
    by_name: dict[str, Parameter], name: str, annotation: str, value: ast.expr | None, *, keyword_only: bool
) -> None:
    required, default = value is None, value
    if isinstance(value, ast.Call) and get_last_name(value) == "field":
        given = {item.arg: item.value for item in value.keywords}
        # `field(init=False)` is not an argument, and removes one that a base has declared.
        if isinstance(init := given.get("init"), ast.Constant) and init.value is False:
            by_name.pop(name, None)
            return
        keyword_only |= _has_flag(value, "kw_only")
        default = given.get("default")
        required = "default" not in given and "default_factory" not in given
    kind = Kind.KEYWORD_ONLY if keyword_only else Kind.POSITIONAL_OR_KEYWORD
    by_name[name] = Parameter(name, kind, required, annotation, _evaluate_literal(default))


def _has_flag(call: ast.expr, name: str) -> bool:
    keywords = call.keywords if isinstance(call, ast.Call) else []
    return any(
        item.arg == name and isinstance(item.value, ast.Constant) and item.value.value is True for item in keywords
    )


# Decorators whose own source need not be read.
_KEEPING = frozenset(
    {
        "abstractmethod", "cache", "contextmanager", "deprecated", "final", "inference_mode", "lru_cache", "no_grad",
        "no_type_check", "override", "runtime_checkable", "total_ordering", "wraps",
    }
)  # fmt: skip


def is_constructor_changed(cls: Class) -> bool:
    """Return whether a decorator, a metaclass, or a base's `__init_subclass__` may have made another constructor."""
    # torch and Lightning are known to make no constructors at run time: their many bases need not be read.
    if source.is_plain(cls.module.name):
        return False
    if not {get_last_name(item) for item in cls.node.decorator_list} <= _KEEPING | {"dataclass"}:
        return True
    order = list(source.iterate_mro(cls))
    if any(_is_constructor_hook(base.members.get("__init_subclass__")) for base in order[1:]):
        return True
    metaclasses = [(item, word.value) for item in order for word in item.node.keywords if word.arg == "metaclass"]
    return any(_has_own_call(item.module, metaclass) for item, metaclass in metaclasses)


def _is_constructor_hook(hook: object) -> bool:
    if not isinstance(hook, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    text = ast.unparse(hook)
    # Three ways of a hook to give its subclasses another constructor, judged by the text alone.
    return text.count("__init__") > 0 or "__signature__" in text or "dataclass" in text


def _has_own_call(module: source.Module, metaclass: ast.expr) -> bool:
    """Return whether a metaclass has a `__call__` of its own, which takes the arguments first, or can't be read."""
    if get_last_name(metaclass) in ("ABCMeta", "EnumMeta", "type"):
        return False
    try:
        resolved = source.resolve_expression(module, metaclass)
    except (NoModuleError, NoNameError, UnreadableError):
        return True
    return not isinstance(resolved, Class) or any("__call__" in item.members for item in source.iterate_mro(resolved))


def is_signature_changed(module: source.Module, decorators: list[ast.expr]) -> bool:
    """Return whether a decorator may have changed the signature."""
    return not all(_is_signature_preserved(module, item) for item in decorators)


def _is_signature_preserved(module: source.Module, decorator: ast.expr) -> bool:
    name = get_last_name(decorator)
    if name in _KEEPING or name in ("staticmethod", "classmethod", "dataclass"):
        return True
    try:
        resolved = source.resolve_expression(module, decorator.func if isinstance(decorator, ast.Call) else decorator)
    except (NoModuleError, NoNameError, UnreadableError):
        return False
    return isinstance(resolved, Function) and _is_transparent_decorator(resolved.node)


def _is_transparent_decorator(decorator: FunctionNode) -> bool:
    """Return whether a decorator's source shows that it keeps signatures: by `functools.wraps`, or it returns its
    argument.
    """
    for node in ast.walk(decorator):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if any(get_last_name(item) == "wraps" for item in node.decorator_list):
                return True
            taken = {arg.arg for arg in node.args.args}
            returns = (item.value for item in node.body if isinstance(item, ast.Return))
            if any(isinstance(value, ast.Name) and value.id in taken for value in returns):
                return True
    return False
