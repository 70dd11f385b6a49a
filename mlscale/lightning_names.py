"""One set of classes for Lightning's two names: `lightning.pytorch` is a second copy of `pytorch_lightning`.

Most public code imports the former, mlscale's Trainer is of the latter, and refuses a module of the other copy. So both
names lead to one set of classes: `lightning.pytorch[.x]` is `pytorch_lightning[.x]`, `lightning.fabric[.x]` is
`lightning_fabric[.x]`, whether the package `lightning` is installed or not. Importing this module imports nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = "lightning"
_ALIASES = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}
_FACADE = "lightning_facade.py"  # next to this file


def resolve_canonical_name(name: str) -> str:
    """Return the dotted path by the packages that are installed: `pytorch_lightning.x` for `lightning.pytorch.x`."""
    for alias, package in _ALIASES.items():
        if name == alias or name.startswith(f"{alias}."):
            return package + name.removeprefix(alias)
    return name


def install_finder() -> None:
    """Let both names be imported as one package; no effect where `lightning` is imported already."""
    # By name: a module that is reloaded has another class `_Finder`.
    if not any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path):
        # First, or Python's own finder would import an installed `lightning`.
        sys.meta_path.insert(0, _Finder())


def raise_if_imported_before() -> None:
    """Refuse to train with the classes of the other copy.

    Raises:
        MLScaleError: `lightning` was imported before mlscale, so its classes are not those that mlscale runs.
    """
    module = sys.modules.get(PACKAGE)
    if module is None or "lightning.pytorch" not in sys.modules or _is_facade(module):
        return
    from mlscale.errors import MLScaleError

    raise MLScaleError(
        "lightning was imported before mlscale",
        where=f"this process: {module.__file__}",
        why="its LightningModule and Callback are not those of pytorch_lightning, which mlscale trains with; imported "
        "after mlscale, both packages are one",
        fix="write `import mlscale` above `import lightning`, and restart the process",
    )


def _is_facade(module: ModuleType) -> bool:
    return (module.__file__ or "").endswith(_FACADE)


class _Finder:
    """A meta-path finder for the names of Lightning. It is called for each import of the process, so it compares the
    first part of the name only.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == PACKAGE:
            return _find_facade_spec()
        # A name below `lightning` is imported after its parent, so `sys.modules` has the package.
        if (package := resolve_canonical_name(name)) == name or not _is_facade(sys.modules[PACKAGE]):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, cast("Loader", _Alias(package)))


def _find_facade_spec() -> ModuleSpec | None:
    """Return the facade as the package `lightning`; None if that name is a user's module."""
    from importlib.machinery import PathFinder
    from importlib.util import spec_from_file_location
    from pathlib import Path

    spec = PathFinder.find_spec(PACKAGE)
    if spec is not None and spec.origin is not None:
        folders = spec.submodule_search_locations or ()
        # Another module of this name: a user's lightning.py, or an unrelated package.
        if not any((Path(folder) / "pytorch").is_dir() for folder in folders):
            return None
    return spec_from_file_location(PACKAGE, Path(__file__).with_name(_FACADE), submodule_search_locations=[])


class _Alias:
    """A loader that returns the module of the other name, unchanged."""

    def __init__(self, package: str) -> None:
        self._package = package

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        from importlib import import_module

        try:
            module = import_module(self._package)
        except ModuleNotFoundError as error:
            # An import inside the module has failed: that error is the one to show.
            if error.name != self._package:
                raise
            raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name) from None
        # importlib sets the spec of the alias on the module, which would then report the wrong name.
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importlib has put the alias's in its place
