"""The signature of an imported target: read only where its source is not certain, before anything is refused."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from types import ModuleType
from typing import Any

from mlscale.config.signatures import source_names as source
from mlscale.config.signatures.signatures import NO_LITERAL, Parameter, Signature, Unknown
from mlscale.config.signatures.source_names import Class, NoModuleError, NoNameError, UnreadableError
from mlscale.config.suggestions.suggest import nearest

_PLAIN = (bool, int, float, str, type(None), list, tuple, dict)


def may_differ(target: str) -> bool:
    """Return whether `target` may differ at run time from its source: it is third-party code, and installed."""
    head = target.partition(".")[0]
    if source.is_plain(target) or head == "__main__":  # a session's own classes are looked up where they are built
        return False
    try:
        return head in sys.modules or importlib.util.find_spec(head) is not None
    except (ImportError, ValueError):
        return False


def extends_mlscale(target: str) -> bool:
    """Return whether the target is a class that derives from one of mlscale's, as far as its source shows."""
    try:
        found = source.find(target)
    except (NoModuleError, NoNameError, UnreadableError):
        return False
    return isinstance(found, Class) and any(item.module.name.startswith("mlscale.") for item in source.mro(found))


def imported_signature(target: str) -> Signature | Unknown | None:
    """Return the signature of the imported target, Unknown if it has no such name, None if it can't be found out."""
    try:
        found = _import(target)
    except _AbsentError as absent:
        better = nearest(absent.name, [name for name in dir(absent.holder) if not name.startswith("_")])
        fix = target.replace(f".{absent.name}", f".{better}", 1) if better else None
        return Unknown(target, absent.name, f"'{absent.path}' has no '{absent.name}'", fix)
    except Exception:  # code of the user's runs: what it raises is reported when the object is built
        return None
    if isinstance(found, ModuleType) or not callable(found):
        return None
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # compiled
        return Signature(target, (), open=True)
    is_open = any(item.kind is item.VAR_KEYWORD for item in parameters)
    return Signature(target, tuple(map(_parameter, parameters)), is_open)


class _AbsentError(Exception):
    """An error for a name that the imported `holder` does not have."""

    def __init__(self, path: str, holder: object, name: str) -> None:
        super().__init__(name)
        self.path, self.holder, self.name = path, holder, name


def _import(target: str) -> Any:
    """Return the object at the dotted path, as Hydra finds it: attributes first, then submodules."""
    path, *rest = target.split(".")
    found: Any = importlib.import_module(path)
    for name in rest:
        found, path = _attribute(found, path, name), f"{path}.{name}"
    return found


def _attribute(holder: Any, path: str, name: str) -> Any:
    try:
        # Attributes before submodules, as Hydra does: a package may bind a class of its submodule's name.
        return getattr(holder, name)
    except AttributeError:
        if not isinstance(holder, ModuleType):
            raise _AbsentError(path, holder, name) from None
    try:
        return importlib.import_module(f"{path}.{name}")
    except ModuleNotFoundError as error:
        # The submodule exists, but an import inside it fails: that is a different error.
        if error.name != f"{path}.{name}":
            raise
        raise _AbsentError(path, holder, name) from None


def _parameter(item: inspect.Parameter) -> Parameter:
    named = item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
    annotation = None if item.annotation is item.empty else _text(item.annotation)
    default = item.default if isinstance(item.default, _PLAIN) else NO_LITERAL
    return Parameter(item.name, item.kind, named and item.default is item.empty, annotation, default)


def _text(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
