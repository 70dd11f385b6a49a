"""What a target is once it is imported: asked only where its source can't tell, before anything is refused for it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from functools import cache
from types import ModuleType
from typing import Any

from mlscale.config import source
from mlscale.config.signatures import NO_LITERAL, Parameter, Signature
from mlscale.config.source import Class, NoModuleError, NoNameError, UnreadableError
from mlscale.lightning_names import canonical_name

# Packages of which every name is found by reading: a typo in them is answered without importing torch.
_READ = frozenset({"mlscale", "torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning_fabric"})
_PLAIN = (bool, int, float, str, type(None), list, tuple, dict)


def may_differ(target: str) -> bool:
    """Whether `target` may be something else at run time than its source tells: it is third-party code, and there."""
    head = canonical_name(target).partition(".")[0]
    if head in _READ:
        return False
    try:
        return head in sys.modules or importlib.util.find_spec(head) is not None
    except (ImportError, ValueError):
        return False


def extends_mlscale(target: str) -> bool:
    """Whether the target is a class that derives from one of mlscale's, as far as its source tells."""
    try:
        found = source.find(target)
    except (NoModuleError, NoNameError, UnreadableError):
        return False
    return isinstance(found, Class) and any(item.module.name.startswith("mlscale.") for item in source.mro(found))


@cache
def imported_signature(target: str) -> Signature | None:
    """The signature of the imported target; None where it does not import, or is nothing to call."""
    try:
        found = _import(target)
    except Exception:  # user code runs: what it raises is told when the object is built
        return None
    if isinstance(found, ModuleType) or not callable(found):
        return None
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # compiled
        return Signature(target, (), open=True)
    is_open = any(item.kind is item.VAR_KEYWORD for item in parameters)
    return Signature(target, tuple(map(_parameter, parameters)), is_open)


def _import(target: str) -> Any:
    """The object at the dotted path, as Hydra finds it: attributes first, then submodules."""
    head, *rest = target.split(".")
    found: Any = importlib.import_module(head)
    path = head
    for name in rest:
        path = f"{path}.{name}"
        try:
            found = getattr(found, name)
        except AttributeError:
            if not isinstance(found, ModuleType):
                raise
            found = importlib.import_module(path)
    return found


def _parameter(item: inspect.Parameter) -> Parameter:
    named = item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
    annotation = None if item.annotation is item.empty else _text(item.annotation)
    default = item.default if isinstance(item.default, _PLAIN) else NO_LITERAL
    return Parameter(item.name, item.kind, named and item.default is item.empty, annotation, default)


def _text(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
