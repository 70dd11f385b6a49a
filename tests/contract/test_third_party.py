"""Commands of installed packages: listed, run, and left out with one line where they are broken or clash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mlscale
from mlscale.cli import main
from mlscale.commands import COMMANDS, command
from mlscale.commands.completion.entry import complete_words
from mlscale.config.schema.model_arguments import REFERENCES
from mlscale.config.schema.roots import COMMAND_BASES, find_roots
from scripts.docs_commands import files
from scripts.third_party import LIMIT, PAGE, install_package, use_package
from tests.serving import STORED

COMMAND = """
from mlscale.commands.command import Command
COMMAND = Command(summary="count things", examples=(("mlscale count", "all of them"),), module="counting.count")
WEIGH = Command(summary="weigh a model", module="counting.weigh", takes_model=True)
OTHER = "text"
"""
COUNT = """
from mlscale.report import Result
def run(cfg):
    return Result("count", True, f"{cfg.optimizer.lr} is the rate", {"rate": cfg.optimizer.lr})
"""
WEIGH = """
import mlscale
from mlscale.report import Result
def run(cfg):
    counted = mlscale.run("count", [f"optimizer.lr={cfg.weigh.scale.step}"])
    return Result("weigh", True, f"{cfg.ref} in {cfg.weigh.unit}, {counted.sentence}", {})
"""
WEIGH_KEYS = """# @package weigh
# What `mlscale weigh` prints.
unit: kilograms   # str: of weight
scale:
  step: 0.125     # float: of the scale
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package with these entry points where pip would; afterwards no command of it is known."""
    site = tmp_path / "site"
    texts = {"__init__": "", "command": COMMAND, "count": COUNT, "weigh": WEIGH, "broken": "import nothing_here\n"}
    (site / "counting/conf/weigh").mkdir(parents=True)
    for name, text in {**texts, "conf/__init__": ""}.items():
        (site / "counting" / f"{name}.py").write_text(text)
    (site / "counting/conf/weigh/default.yaml").write_text(WEIGH_KEYS)
    monkeypatch.syspath_prepend(str(site))

    def declare(package: str, group: str = "mlscale.commands", **points: str) -> None:
        info = site / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        lines = [f"{name.replace('_', '-')} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))

    tables: tuple[dict[str, Any], ...] = (COMMANDS, COMMAND_BASES, REFERENCES, command._package_by_command)
    before = [dict(table) for table in tables]
    yield declare
    for table, items in zip(tables, before, strict=True):
        table.clear()
        table.update(items)
    for name in [name for name in sys.modules if name.partition(".")[0] == "counting"]:
        del sys.modules[name]


def test_a_command_is_listed_described_completed_and_run(
    install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", count="counting.command:COMMAND")
    assert main(["count", "optimizer.lr=0.5"]) == 0
    assert "0.5 is the rate" in capsys.readouterr().out
    assert mlscale.run("count", ["optimizer.lr=0.25"]).metrics == {"rate": 0.25}
    assert main(["--help"]) == 0
    printed = capsys.readouterr()
    assert "\n  count          count things\n" in printed.out
    assert printed.err == ""
    for words in (["count", "--help"], ["help", "count"]):
        assert main(words) == 0
        assert "mlscale count: count things" in capsys.readouterr().out
    assert "count" in complete_words(["cou"], find_roots())
    assert "optimizer.lr=" in complete_words(["count", "optimizer.l"], find_roots())


def test_its_config_is_checked_like_that_of_a_training(
    install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", count="counting.command:COMMAND")
    assert main(["count", "optimizer.lrr=0.5"]) == 2
    assert "unknown key 'optimizer.lrr'" in capsys.readouterr().err


def test_its_first_argument_may_be_a_trained_model(
    install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", count="counting.command:COMMAND", weigh="counting.command:WEIGH")
    install("keys", "mlscale.config_dirs", weigh="counting.conf")
    # It runs another command, too.
    assert main(["weigh", str(STORED)]) == 0
    assert f"{STORED} in kilograms, 0.125 is the rate" in capsys.readouterr().out
    assert main(["weigh", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "usage: mlscale weigh MODEL " in printed
    keys = [line.split("=")[0].strip() for line in printed.partition("keys:\n")[2].splitlines()[:4]]
    assert keys == ["ref", "trust", "weigh.unit", "weigh.scale.step"]
    assert main(["weigh"]) == 2
    assert "fix:   mlscale weigh last\n" in capsys.readouterr().err
    assert main(["weigh", f"ref={STORED}", "last", "weigh.unit=g"]) == 2
    assert "fix:   mlscale weigh last weigh.unit=g\n" in capsys.readouterr().err
    assert "ref=" in complete_words(["weigh", "re"], find_roots())
    # What its help names.
    assert main(["config", "show", "command=weigh"]) == 0
    assert "\nweigh:\n  unit: kilograms\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "what", "fix"),
    [
        ("weigh.unt=g", "unknown key 'weigh.unt'", "weigh.unit=g"),
        ("weigh.scale.stpe=1", "unknown key 'weigh.scale.stpe'", "weigh.scale.step=1"),
        (
            "weigh.scale.step=wide",
            "'weigh.scale.step' must be float, not the text 'wide'",
            "of the scale; see docs/configuration.md",
        ),
        ("optimizer.lrr=0.5", "unknown key 'optimizer.lrr'", "optimizer.lr=0.5"),
    ],
)
def test_its_own_keys_are_checked(
    word: str, what: str, fix: str, install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", count="counting.command:COMMAND", weigh="counting.command:WEIGH")
    install("keys", "mlscale.config_dirs", weigh="counting.conf")
    assert main(["weigh", str(STORED), word]) == 2
    error = capsys.readouterr().err
    assert f"error: {what}\n" in error
    assert fix in error


def test_a_misspelt_one_is_suggested_with_its_words(
    install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", count="counting.command:COMMAND", weigh="counting.command:WEIGH")
    assert main(["wiegh", "last", "weigh.unit=g"]) == 2
    assert "fix:   mlscale weigh last weigh.unit=g\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("points", "line"),
    [
        (
            {"count": "counting.broken:COMMAND"},
            "warning   package counting: the command 'count' does not load (ModuleNotFoundError: No module named "
            "'nothing_here'); pip uninstall counting, or correct the entry point count = counting.broken:COMMAND\n",
        ),
        (
            {"count": "counting.command:OTHER"},
            "warning   package counting: the command 'count' does not load (counting.command:OTHER is not an "
            "mlscale.commands.command.Command with a module); pip uninstall counting, or correct the entry point "
            "count = counting.command:OTHER\n",
        ),
        *(
            (
                {name: "counting.command:COMMAND"},
                f"warning   package counting: the command '{name}' is left out: the name is mlscale's own; pip "
                f"uninstall counting, or rename the entry point '{name}' of mlscale.commands\n",
            )
            for name in ("train", "help", "data")
        ),
    ],
)
def test_one_that_can_not_be_offered_is_a_line_of_the_help_and_no_error(
    points: dict[str, str], line: str, install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", **points)
    assert main(["--help"]) == 0
    printed = capsys.readouterr()
    assert printed.err == line
    assert "count things" not in printed.out
    assert "\n  train " in printed.out


def test_of_two_of_one_name_the_second_is_left_out(
    install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", count="counting.command:COMMAND")
    install("others", count="counting.command:COMMAND")
    for _ in range(2):
        assert main(["--help"]) == 0
        printed = capsys.readouterr()
        assert printed.out.count("count things") == 1
        assert "package others: the command 'count' is left out: package counting has one of this name" in printed.err


def test_a_broken_one_ends_its_own_command_alone(
    install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", count="counting.broken:COMMAND", fine="counting.command:COMMAND")
    assert main(["count"]) == 5
    error = capsys.readouterr().err
    assert "error: the command 'count' does not load\n  where: package counting\n" in error
    assert main(["fine"]) == 0
    assert main(["recipes", "ls"]) == 0


def test_broken_options_are_reported_where_they_are_needed(
    install: Install, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("counting", "mlscale.config_dirs", count="counting.broken")
    assert main(["--help"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["config", "show"]) == 2
    error = capsys.readouterr().err
    assert "error: the entry point mlscale.config_dirs:count does not load\n  where: package counting" in error
    assert "fix:   pip uninstall counting, or correct its entry point" in error


def test_the_help_imports_nothing_heavy(install: Install, tmp_path: Path) -> None:
    install("counting", count="counting.command:COMMAND")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from mlscale.cli import main; main(['--help']); "
        "print([name for name in ('torch', 'hydra', 'omegaconf', 'counting.count') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "count things" in run.stdout
    assert run.stdout.splitlines()[-1] == "[]", run.stderr


def test_each_part_of_the_documented_package_is_short() -> None:
    lengths = {name: len(text.splitlines()) for name, text in files(PAGE).items()}
    parts = {
        "command": ("command.py", "count.py", "card.py", "hello/default.yaml", "card/default.yaml"),
        "callback": ("callbacks.py", "callbacks/batches.yaml"),
        "logger": ("loggers.py", "logger/lines.yaml"),
        "recipe": ("recipe/hello.yaml",),
        "task type": ("counts.py", "task/counts.yaml"),
    }
    for part, endings in parts.items():
        found = [length for name, length in lengths.items() if name.endswith(tuple(f"/{end}" for end in endings))]
        assert len(found) == len(endings), part
        assert sum(found) <= LIMIT, part


@pytest.mark.slow
def test_the_documented_package_is_installed_and_used(tmp_path: Path) -> None:
    site = install_package(tmp_path)
    assert len(list(use_package(tmp_path / "elsewhere", site))) == 6
