"""The signature of an imported target: read only where its source is not certain, before anything is refused."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from types import ModuleType
from typing import Any

from mlscale.config.names.suggest import find_nearest
from mlscale.config.signatures import source_names as source
from mlscale.config.signatures.signatures import NO_LITERAL, Parameter, Signature, Unknown
from mlscale.config.signatures.source_names import Class, NoModuleError, NoNameError, UnreadableError
from mlscale.config.signatures.unpacked_keywords import inspect_signature

_PLAIN = (bool, int, float, str, type(None), list, tuple, dict)


def can_differ(target: str) -> bool:
    """Return whether `target` may differ at run time from its source: it is third-party code, and installed."""
    head = target.partition(".")[0]
    if source.is_plain(target) or head == "__main__":  # a session's own classes are looked up where they are built
        return False
    try:
        return head in sys.modules or importlib.util.find_spec(head) is not None
    except (ImportError, ValueError):
        return False


def is_mlscale_subclass(target: str) -> bool:
    """Return whether the target is a class that derives from one of mlscale's, as far as its source shows."""
    try:
        resolved = source.find_object(target)
    except (NoModuleError, NoNameError, UnreadableError):
        return False
    return isinstance(resolved, Class) and any(
        item.module.name.startswith("mlscale.") for item in source.iterate_mro(resolved)
    )


def inspect_imported_target(target: str) -> Signature | Unknown | None:
    """Return the signature of the imported target, Unknown if it has no such name, None if it can't be found out."""
    try:
        imported_object = _import_dotted_path(target)
    except _AbsentError as absent:
        # The last part is what is built, which a module can't be.
        is_last = target.endswith(f".{absent.name}")
        names = [name for name in dir(absent.holder) if not name.startswith("_")]
        better = find_nearest(
            absent.name, [name for name in names if not is_last or callable(getattr(absent.holder, name, None))]
        )
        fix = target.replace(f".{absent.name}", f".{better}", 1) if better else None
        return Unknown(target, absent.name, f"'{absent.path}' has no '{absent.name}'", fix)
    except Exception:  # code of the user's runs: what it raises is reported when the object is built
        return None
    if isinstance(imported_object, ModuleType) or not callable(imported_object):
        return None
    try:
        parameters = inspect_signature(imported_object).parameters.values()
    except (TypeError, ValueError):  # compiled
        return Signature(target, (), open=True)
    is_open = any(item.kind is item.VAR_KEYWORD for item in parameters) or _takes_any_keyword(imported_object)
    return Signature(target, tuple(map(_convert_parameter, parameters)), is_open)


def _takes_any_keyword(target: object) -> bool:
    """Return whether a class is a dataclass whose `__post_init__` takes any keyword, as transformers' configs are."""
    # The signature shows the fields alone: the constructor that takes the rest wraps the one that was generated.
    after = getattr(target, "__post_init__", None) if isinstance(target, type) else None
    return after is not None and inspect.getfullargspec(after).varkw is not None


class _AbsentError(Exception):
    """An error for a name that the imported `holder` does not have."""

    def __init__(self, path: str, holder: object, name: str) -> None:
        super().__init__(name)
        self.path, self.holder, self.name = path, holder, name


def _import_dotted_path(target: str) -> Any:
    """Return the object at the dotted path, as Hydra finds it: attributes first, then submodules."""
    path, *rest = target.split(".")
    current: Any = importlib.import_module(path)
    for name in rest:
        current, path = _get_attribute(current, path, name), f"{path}.{name}"
    return current


def _get_attribute(holder: object, path: str, name: str) -> Any:
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


def _convert_parameter(item: inspect.Parameter) -> Parameter:
    named = item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
    annotation = None if item.annotation is item.empty else _format_annotation(item.annotation)
    default = item.default if isinstance(item.default, _PLAIN) else NO_LITERAL
    return Parameter(item.name, item.kind, named and item.default is item.empty, annotation, default)


def _format_annotation(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
