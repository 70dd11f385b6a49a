"""Rules of the house that import-linter can't state: what is imported when, and who may call what."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "pytorch_lightning", "torchvision", "torchmetrics", "webdataset", "wandb", "sklearn", "numpy")


Modules = list[tuple[str, ast.Module]]


@pytest.fixture(scope="module")
def modules() -> Modules:
    """The name and the code of every module."""
    paths = sorted((ROOT / "mlscale").rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return [(name, ast.parse(path.read_text())) for name, path in zip(names, paths, strict=True)]


def imported_names(tree: ast.Module) -> set[str]:
    """Dotted names of everything that a module imports, at any depth of its code."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    "module",
    [
        "mlscale",
        "mlscale.cli",
        "mlscale.config.composition.compose",
        "mlscale.config.signatures.signatures",
        "mlscale.data",
        "mlscale.versions",
        "mlscale.report",
        "mlscale.runs",
        "mlscale.tasks",
    ],
)
def test_importing_it_imports_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_only_build_calls_instantiate(modules: Modules) -> None:
    callers = [
        name
        for name, tree in modules
        if any(
            imported.startswith(("hydra.utils.instantiate", "hydra._internal.instantiate"))
            or imported.endswith("hydra.utils")
            for imported in imported_names(tree)
        )
    ]
    assert callers == ["mlscale.assembly.build"]


def test_only_the_command_line_ends_the_process(modules: Modules) -> None:
    culprits = []
    for name, tree in modules:
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        exits = [call for call in calls if ast.unparse(call) in ("sys.exit", "os._exit", "exit", "quit")]
        raises = [node for node in ast.walk(tree) if isinstance(node, ast.Raise) and "SystemExit" in ast.unparse(node)]
        if exits or raises:
            culprits.append(name)
    # A process that hangs can't come back to the command line: it is ended. The agent is a command line of its own, as
    # are the installation of a server and the supervisor of one. A worker ends with the process that has started it,
    # whatever it does then; a rank, which leaves its error in the run folder, with an exit code for its launcher. A
    # signal that comes while commands are still imported has no command line to come back to.
    assert set(culprits) <= {
        "mlscale.cli", "mlscale.__main__", "mlscale.launch.early_stop", "mlscale.launch.hung_process",
        "mlscale.launch.external.elastic_agent",
        "mlscale.data.workers.serve_requests", "mlscale.assembly.worker",
        "mlscale.runs.host.supervisor", "mlscale.targets.triton.local_server",
    }  # fmt: skip


def test_only_removal_asks_on_standard_input(modules: Modules) -> None:
    asking = [
        name
        for name, tree in modules
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("input", "getpass.getpass", "sys.stdin.readline")
    ]
    asks = "mlscale.commands.runs.collect_checkpoints"
    assert set(asking) <= {asks}, "`runs rm` and `runs gc` ask, on a terminal only"


def test_only_what_a_user_allows_by_word_unpickles_or_runs_text(modules: Modules) -> None:
    forbidden = {"pickle.load", "pickle.loads", "eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load"}
    allowed = {
        "mlscale.data.shards.member_decoder": {"pickle.loads", "torch.load"},
        "mlscale.data.shards.shard_paths": {"subprocess.run"},
    }
    # Between a process and one that it has started.
    allowed["mlscale.serve.json_process"] = {"pickle.loads"}
    allowed["mlscale.data.workers.serve_requests"] = {"pickle.loads"}
    culprits = []
    for name, tree in modules:
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            shell = any(word.arg == "shell" and ast.unparse(word.value) == "True" for word in node.keywords)
            weak = any(word.arg == "weights_only" and ast.unparse(word.value) == "False" for word in node.keywords)
            function = ast.unparse(node.func)
            if (function in forbidden or shell or weak) and function not in allowed.get(name, set()):
                culprits.append(f"{name}:{node.lineno}: {function}")
    assert culprits == []


def test_no_test_file_is_left_out(pytestconfig: pytest.Config) -> None:
    """pytest skips folders by name without a word, `build` and `dist` among them."""
    skipped = pytestconfig.getini("norecursedirs")
    written = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(written) > 60
    assert [path for path in written for part in path.parts if any(fnmatch(part, name) for name in skipped)] == []


def test_no_public_name_is_that_of_a_module_beside_it() -> None:
    """Importing `mlscale.report.save_result` would put the module where others look for the function."""
    clashes, asked = [], 0
    for init in sorted((ROOT / "mlscale").glob("*/__init__.py")):
        beside = {path.stem for path in init.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
        for node in ast.walk(ast.parse(init.read_text())):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = set(ast.literal_eval(node.value))
                asked += len(names)
                clashes += [f"{init.parent.name}.{name}" for name in names & beside]
    assert asked > 20
    assert not clashes


def test_training_imports_neither_compression_nor_monitoring(modules: Modules) -> None:
    """They join a run by `_target_`: import-linter lets rooms of one floor import each other."""
    found = {
        f"{name} imports {imported}"
        for name, tree in modules
        for imported in imported_names(tree)
        if name.startswith("mlscale.train") and imported.startswith(("mlscale.compress", "mlscale.monitor"))
    }
    assert not found
