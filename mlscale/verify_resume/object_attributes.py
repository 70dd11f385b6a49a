"""Digests of the state of a run's objects that is not in tensors of checkpoints: attributes and random generators.

Covered are objects of the run's own code: the module with its sub-modules, callbacks, the data module, loaders, data
sets, samplers, and the objects inside them. Attributes that methods of Lightning, torchmetrics and mlscale set are
saved by these libraries, and left out.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pytorch_lightning as pl
from torch import nn
from torch.utils.data import DataLoader

from mlscale.train.checkpoint import tensor_digests as digests
from mlscale.train.lightning.trainer_parts import get_callbacks, get_data_module

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

_OWN_STATE = ("pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "torchmetrics", "mlscale")
_LOADING = ("torch.utils.data",)  # its objects contain objects of the user
# Not entered: objects of libraries, which hold their own state or none that a resume must restore.
_LIBRARIES = (*_OWN_STATE, "torch", "numpy", "pandas", "PIL", "omegaconf", "hydra", "wandb", "tensorboard", "tqdm")
_SHARDED = "__composable_api_state_key_"  # torch's `fully_shard` names its state by a number drawn at random
_MAX_DEPTH = 4  # levels of objects inside of objects
_MAX_OBJECTS = 500  # in all: a data set may consist of a million objects
_MAX_ENTRIES = 64  # of a list of objects


class StateOwner(NamedTuple):
    """An object of the run and its role.

    Attributes:
        role: module, callback, data or loader.
        path: its path or number among others of its role; empty for a single one.
    """

    role: str
    path: str
    value: Any

    def __str__(self) -> str:
        return f"{self.role} {_format_class_name(self.value)}" + (f" at {self.path}" if self.path else "")

    def get_nested_owner(self, attribute: str, value: object) -> StateOwner:
        """Return the owner for an object in an attribute of this one."""
        return StateOwner(self.role, f"{self.path}.{attribute}" if self.path else attribute, value)


AttributeDigests = dict[str, dict[str, list[Any]]]
"""By owner (`<role> <class> at <place>`) and attribute: its kind (value, tensor or generator), and its digest."""


def hash_object_attributes(trainer: Trainer, module: pl.LightningModule) -> AttributeDigests:
    """Return the digests of the current attributes and generators of a run's objects."""
    traversal = _ObjectTraversal()
    for owner in _iterate_owners(trainer, module):
        traversal.visit_object(owner)
    return traversal.digests


def _iterate_owners(trainer: Trainer, module: pl.LightningModule) -> Iterator[StateOwner]:
    for path, part in module.named_modules():
        yield StateOwner("module", path, part)
    kinds: list[type] = []
    for callback in get_callbacks(trainer):
        if not _is_in_packages(type(callback), ("mlscale",)):
            kinds.append(type(callback))
            count = kinds.count(type(callback))
            yield StateOwner("callback", f"number {count}" if count > 1 else "", callback)
    if get_data_module(trainer) is not None:
        yield StateOwner("data", "", get_data_module(trainer))
    if trainer.fit_loop._combined_loader is not None:
        for number, loader in enumerate(trainer.fit_loop._combined_loader.flattened):
            yield StateOwner("loader", f"number {number + 1}" if number else "", loader)


class _ObjectTraversal:
    """A traversal that visits each object once: objects may refer to each other in cycles."""

    def __init__(self) -> None:
        self.digests: AttributeDigests = {}
        self._seen: set[int] = set()

    def visit_object(self, owner: StateOwner, depth: int = 0) -> None:
        if id(owner.value) in self._seen or len(self._seen) > _MAX_OBJECTS:
            return
        self._seen.add(id(owner.value))
        kind: type = type(owner.value)
        left = _find_library_attributes(kind)
        for name, part in _collect_attributes(owner.value).items():
            if (state := digests.hash_generator(part)) is not None:
                self._record_digest(owner, name, "generator", state)
                continue
            digest = digests.hash_value(part) if name not in left else digests.NOTHING
            if digest is not digests.NOTHING:
                self._record_digest(owner, name, "tensor" if hasattr(part, "shape") else "value", digest)
            self._visit_nested(
                owner, name, part, depth
            )  # an attribute of Lightning's may contain an object of the user

    def _visit_nested(self, owner: StateOwner, path: str, part: object, depth: int) -> None:
        """Visit an object, or the objects in a list or dictionary."""
        if depth >= _MAX_DEPTH:
            return
        if _is_visited(part):
            self.visit_object(owner.get_nested_owner(path, part), depth + 1)
            return
        if isinstance(part, Mapping):
            entries: Iterable[tuple[Any, Any]] = list(part.items())[:_MAX_ENTRIES]
        elif isinstance(part, list | tuple):
            entries = enumerate(part[:_MAX_ENTRIES])
        else:
            return
        for key, entry in entries:
            inner = f"{path}[{key!r}]"
            if (state := digests.hash_generator(entry)) is not None:
                self._record_digest(owner, inner, "generator", state)
            else:
                self._visit_nested(owner, inner, entry, depth + 1)

    def _record_digest(self, owner: StateOwner, path: str, kind: str, digest: object) -> None:
        self.digests.setdefault(str(owner), {})[path] = [kind, digest]


def _collect_attributes(value: object) -> dict[str, Any]:
    """Return the attributes of an object, without methods, hooks and internals of its base class."""
    members = dict(vars(value)) if hasattr(value, "__dict__") else {}
    kind = type(value)
    internal: frozenset[str] = frozenset()
    for base in (nn.Module, pl.LightningModule, pl.LightningDataModule):
        if isinstance(value, base):
            internal |= _find_constructor_attributes(base)
    private = _is_in_packages(kind, _LOADING)
    return {
        name: part
        for name, part in members.items()
        if name not in internal
        and not callable(getattr(kind, name, None))  # a method or hook that was replaced on the instance
        and not (private and name.startswith("_"))
        and not name.startswith(_SHARDED)
    }


def _is_visited(value: object) -> bool:
    """Return True if the attributes of an object are visited: for classes of the run's own code, and loaders."""
    if isinstance(value, nn.Module | pl.LightningDataModule | pl.Trainer | type) or not hasattr(value, "__dict__"):
        return isinstance(value, DataLoader)
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    if root in sys.stdlib_module_names and root != "__main__":
        return False
    return _is_in_packages(kind, _LOADING) or not _is_in_packages(kind, _LIBRARIES)


@cache
def _find_library_attributes(kind: type) -> frozenset[str]:
    """Return the attributes that methods of library classes set (Lightning, torchmetrics, torch's loading, mlscale),
    unless a class of the user sets them, too."""
    library: set[str] = set()
    own: set[str] = set()
    for base in kind.__mro__:
        if _is_in_packages(base, (*_OWN_STATE, *_LOADING)):
            library.update(_find_assigned_attributes(base))
        elif not _is_in_packages(base, ("torch",)):
            own.update(_find_assigned_attributes(base))
    return frozenset(library - own)


def _find_assigned_attributes(kind: type) -> Iterator[str]:
    """Yield the names of attributes to which the methods of one class assign."""
    # From the source: an instance does not record which class's method has set an attribute. Without source, as for a
    # class that was typed into a shell, all attributes of an object count as the user's.
    with contextlib.suppress(OSError, TypeError):
        for line in inspect.getsource(kind).splitlines():
            target, is_assignment, _ = line.partition(" = ")
            if is_assignment and target.lstrip().startswith("self."):
                yield from re.findall(r"self\.(\w+)", target)


@cache
def _find_constructor_attributes(base: type) -> frozenset[str]:
    # The attributes of a fresh instance are those that the base class itself sets in its constructor.
    return frozenset(vars(base()))


def _is_in_packages(kind: type, roots: Sequence[str]) -> bool:
    return any(kind.__module__ == root or kind.__module__.startswith(root + ".") for root in roots)


def _format_class_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
