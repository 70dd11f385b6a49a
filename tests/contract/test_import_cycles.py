"""No cycle of imports between modules or packages; those for type checkers and those inside functions count, too.

import-linter knows layers, and lets packages of one layer import each other.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Graph = Mapping[str, Collection[str]]
_WOVEN = {
    "mlscale.config": "a check suggests what to type, and what is suggested is checked before it is printed",
}
"""Packages whose sub-packages import each other, with the reason; their modules do not."""


def list_modules(root: Path) -> dict[str, Path]:
    """Return the files of all modules and packages by their dotted names."""
    paths = sorted((root / "mlscale").rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def list_imports(tree: ast.AST, known: Collection[str]) -> set[str]:
    """Return the modules and packages, among those known, that the code imports at any depth."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not used"
            # `from mlscale.stats import bootstrap` imports a module, `from mlscale.stats import Interval` a name.
            dotted = {f"{node.module}.{alias.name}": node.module or "" for alias in node.names}
            names |= {name if name in known else module for name, module in dotted.items()}
    return names & set(known)


def read_module_imports(root: Path) -> dict[str, set[str]]:
    """Return what each module imports, of this project."""
    modules = list_modules(root)
    return {name: list_imports(ast.parse(path.read_text()), modules) - {name} for name, path in modules.items()}


def find_cycles(graph: Graph) -> list[list[str]]:
    """Return the groups of names that reach each other: Tarjan's strongly connected components of two or more."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_names: list[str] = []
    found: list[list[str]] = []

    def visit_name(name: str) -> None:
        order[name] = lowest[name] = len(order)
        open_names.append(name)
        for imported in sorted(graph.get(name, ())):
            if imported not in order:
                visit_name(imported)
                lowest[name] = min(lowest[name], lowest[imported])
            elif imported in open_names:
                lowest[name] = min(lowest[name], order[imported])
        if lowest[name] == order[name]:
            start = open_names.index(name)
            group = sorted(open_names[start:])
            del open_names[start:]
            if len(group) > 1:
                found.append(group)

    for name in sorted(graph):
        if name not in order:
            visit_name(name)
    return sorted(found)


def merge_into_packages(imports: Graph, parent: str) -> dict[str, set[str]]:
    """Return the imports between the packages and single modules that are directly inside a package."""

    def iterate_pairs() -> Iterator[tuple[str, str]]:
        depth, prefix = parent.count(".") + 2, f"{parent}."
        for name, imported in imports.items():
            for other in imported:
                if name.startswith(prefix) and other.startswith(prefix):
                    yield ".".join(name.split(".")[:depth]), ".".join(other.split(".")[:depth])

    merged: dict[str, set[str]] = {}
    for source, target in iterate_pairs():
        if source != target:
            merged.setdefault(source, set()).add(target)
    return merged


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    found = read_module_imports(ROOT)
    assert len(found) > 600
    assert sum(map(len, found.values())) > 2500
    return found


def test_no_modules_import_each_other(imports: Graph) -> None:
    assert find_cycles(imports) == []


def test_no_packages_import_each_other(imports: Graph) -> None:
    assert find_cycles(merge_into_packages(imports, "mlscale")) == []


def test_no_sub_packages_import_each_other(imports: Graph) -> None:
    parents = {name.rpartition(".")[0] for name in imports} - {"", "mlscale"}
    found = {parent for parent in parents if find_cycles(merge_into_packages(imports, parent))}
    assert found == set(_WOVEN)


def test_a_cycle_is_found_wherever_the_import_is_written(tmp_path: Path) -> None:
    sources = {
        "__init__.py": "",
        "a/__init__.py": "",
        "b/__init__.py": "",
        "a/one.py": "from mlscale.b import two",
        "b/two.py": "def call():\n    import mlscale.a.three",
        "b/four.py": "if TYPE_CHECKING:\n    from mlscale.b.five import Name",
        "b/five.py": "from mlscale.b.four import Other",
        "a/three.py": "",
    }
    for path, text in sources.items():
        (tmp_path / "mlscale" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mlscale" / path).write_text(text)
    found = read_module_imports(tmp_path)
    assert find_cycles(found) == [["mlscale.b.five", "mlscale.b.four"]]
    assert find_cycles(merge_into_packages(found, "mlscale")) == [["mlscale.a", "mlscale.b"]]
