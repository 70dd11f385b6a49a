"""What is used of the private parts of Lightning, Hydra and torch is in one table, checked before a run."""

import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hydra
import omegaconf
import pytest

from mlscale.config.names import private_names
from mlscale.config.names.private_names import check_private_names, read_private_names
from mlscale.errors import Exit, MLScaleError

ROOT = Path(__file__).resolve().parents[2] / "mlscale"
COMPOSE = ROOT / "config/composition/compose.py"
LIBRARIES = {"torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning_fabric", "hydra", "omegaconf"}
# Private attributes of others: Python's own, and those of extras, whose absence their own adapters handle.
OTHERS = {
    "_exit", "_current_frames", "_getframe", "_replace", "_forkserver", "_forkserver_pid",
    "_convert_", "_fields", "_at_epoch_boundary", "_cat_file", "_glob", "_info", "_ls", "_metric_objs", "_target_",
    "_config",
}  # fmt: skip
# Operators that gloo registers, and modules on the way to a name that is in the table.
WAY = {"_C", "_profiler", "_pytree", "_allgather_base_", "_reduce_scatter_base_", "_internal"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def list_private_uses() -> Iterator[tuple[str, str]]:
    """Each import from a private part, and each private attribute that no module of mlscale defines, with its file."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    own: set[str] = set()
    for _, node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own |= {node.attr} if isinstance(node.value, ast.Name) and node.value.id == "self" else set()
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.add(node.target.id)
    for path, node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            parts = (node.module or "").split(".")
            yield from ((path.name, a.name) for a in node.names if any(map(is_private, [*parts, a.name])))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield path.name, node.attr
        elif isinstance(node, ast.keyword) and node.arg and is_private(node.arg) and node.arg not in own:
            yield path.name, node.arg
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)) and name.value not in own:
                yield path.name, str(name.value)


def list_inherited_uses() -> Iterator[tuple[str, str]]:
    """Each private method or attribute of a library's class that a class of mlscale overrides or takes from `self`."""
    for file in sorted((ROOT / "train").rglob("*.py")) + sorted((ROOT / "profile").glob("*.py")) + [COMPOSE]:
        module = importlib.import_module(".".join(["mlscale", *file.relative_to(ROOT).with_suffix("").parts]))
        for kind in vars(module).values():
            if not inspect.isclass(kind) or kind.__module__ != module.__name__:
                continue
            bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in LIBRARIES]
            theirs = {name for base in bases for name in vars(base) if is_private(name)}
            files = {inspect.getsourcefile(base) or "" for base in bases}
            theirs |= {name for path in files for name in re.findall(r"self\.(_\w+)", Path(path).read_text("utf-8"))}
            used = set(re.findall(r"\b(?:self|cls)\.(_\w+)", file.read_text("utf-8"))) | set(vars(kind))
            yield from ((file.name, name) for name in used & theirs if is_private(name) and name != "_abc_impl")


def test_each_private_use_is_in_the_table() -> None:
    table = read_private_names()
    del table["tested"]
    known = {name for row in table.values() for name in row["names"]} | {module.rpartition(".")[2] for module in table}
    inherited = set(list_inherited_uses())
    assert {"_swap_models", "_setup_distributed", "_normalize_file_name"} <= {name for _, name in inherited}
    assert sorted(use for use in inherited if use[1] not in known) == []
    uses = {(file, name) for file, name in list_private_uses() if name not in OTHERS | WAY}
    assert len(uses) > 40, "the search finds them"
    assert sorted(use for use in uses if use[1] not in known) == []
    sources = "".join(path.read_text("utf-8") for path in ROOT.rglob("*.py"))
    named = {name for row in table.values() for name in row["names"]}
    assert [name for name in sorted(named) if not re.search(rf"\b{name}\b", sources)] == ["collective_ops"]


def test_the_installed_libraries_have_all_of_it() -> None:
    check_private_names({"train", "estimate", "data=dali"})
    assert {row["why"] == "" for module, row in read_private_names().items() if module != "tested"} == {False}


def test_a_name_that_is_gone_ends_with_the_version_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_private_names()
    table["torch._compile"] = {"names": ["_gone"], "why": "to test it", "refuses": ["strategy=fsdp"]}
    table["pytorch_lightning.loops.moved"] = {"names": ["_Loop"], "why": "to test it", "refuses": []}
    monkeypatch.setattr(private_names, "read_private_names", lambda: dict(table))
    with pytest.raises(MLScaleError, match=r"pytorch-lightning 2\S+ has no _Loop") as refused:
        check_private_names({"train"})
    assert (refused.value.exit, refused.value.fix) == (Exit.ENVIRONMENT, "pip install pytorch-lightning==2.6.6")
    table["torch._ops"]["only"] = "1."
    with pytest.raises(MLScaleError, match=r"torch 2\S+ has another OpOverload"):
        check_private_names({"estimate"})
    with pytest.raises(MLScaleError, match=r"torch 2\S+ has no _gone(.|\n)*has no _Loop"):
        check_private_names({"train", "strategy=fsdp"})


@pytest.mark.parametrize(
    ("library", "name", "fix"),
    [(hydra, "create_config_search_path", "hydra-core==1.3.8"), (omegaconf, "_get_flag", "omegaconf==2.3.1")],
)
def test_a_name_that_composing_needs_ends_with_the_version_too(
    library: ModuleType, name: str, fix: str, tmp_path: Path
) -> None:
    """Configurations are composed before a command checks the names."""
    copy = tmp_path / library.__name__
    shutil.copytree(Path(str(library.__file__)).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file in copy.rglob("*.py"):
        file.write_text(re.sub(rf"\b{name}\b", "_gone", file.read_text("utf-8")), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mlscale", "+recipe=resnet"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == Exit.ENVIRONMENT
    assert f"has no {name}" in done.stderr
    assert f"pip install {fix}" in done.stderr


if __name__ == "__main__":
    print(*sorted(set(list_private_uses())), sep="\n", file=sys.stdout)
