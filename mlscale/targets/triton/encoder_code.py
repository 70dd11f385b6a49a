"""Copy the code of mlscale's encoders into a repository, so that a server encodes by it without an installation.

The encoders need numpy, and for images and tokenizers a package or two, never torch. The modules that they import are
found in their source and copied; the encoder itself stays data. The version that encodes is thus the one that was
compared with training, whatever is installed where the server runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mlscale.atomic_files import write_text

_ROOT = "mlscale"
_TYPES_ONLY = "TYPE_CHECKING"


def copy_modules(names: list[str], folder: Path) -> list[str]:
    """Write modules of mlscale, and all of mlscale that they import, into a folder of packages; return their names.

    Args:
        names: of the modules.
        folder: that a path of Python is to name.
    """
    sources = _collect_sources(names)
    for name, (path, source) in sources.items():
        target = folder.joinpath(*name.split("."))
        write_text(
            _make_folder(target / "__init__.py" if path.name == "__init__.py" else target.with_suffix(".py")), source
        )
    for name in sources:
        package = name.rpartition(".")[0]
        while package:
            # A package that is only passed through does nothing: its own imports would need more of mlscale.
            file = folder.joinpath(*package.split("."), "__init__.py")
            if package not in sources and not file.exists():
                write_text(_make_folder(file), '"""A part of mlscale, copied for a server."""\n')
            package = package.rpartition(".")[0]
    return sorted(sources)


def _collect_sources(names: list[str]) -> dict[str, tuple[Path, str]]:
    sources: dict[str, tuple[Path, str]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        path = _find_source(name)
        assert path is not None, name
        sources[name] = path, path.read_text(encoding="utf-8")
        waiting += _list_imports(ast.parse(sources[name][1]))
    return sources


def _list_imports(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of mlscale that a module imports when it runs, within functions, too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == _TYPES_ONLY:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == _ROOT:
            modules = [name for alias in node.names if _find_source(name := f"{node.module}.{alias.name}")]
            # `from package import module` needs nothing of the package but the module.
            yield from modules
            if len(modules) < len(node.names):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == _ROOT)
        else:
            yield from _list_imports(node)


def _find_source(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # its parent is a module, not a package
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _make_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
