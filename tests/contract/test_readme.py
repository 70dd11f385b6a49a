"""What README.md tells people to type is what is typed here and in .ci/run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlscale.commands import COMMANDS
from scripts.readme_commands import Block, blocks
from scripts.readme_numbers import BENCHMARKS, read_entries, render_readme

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
RUN_BY_CI = ("install", "tests")


def of_readers() -> list[Block]:
    """The blocks that are run here; .ci/run runs the others."""
    return [block for block in blocks(README) if block.name not in RUN_BY_CI]


def test_every_bash_block_was_found() -> None:
    found = blocks(README)
    assert len(found) == len(re.findall(r"^```(?:bash|sh|shell|console)\b", README, flags=re.MULTILINE))
    assert sum(len(block.commands) for block in of_readers()) > 0
    assert len([block for block in found if block.name in RUN_BY_CI]) == len(RUN_BY_CI)


@pytest.mark.parametrize("name", RUN_BY_CI)
def test_ci_takes_its_commands_from_the_readme(name: str) -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    (block,) = [block for block in blocks(README) if block.name == name]
    assert f"readme {name} >" in ci
    assert block.commands
    assert not block.not_run
    printed = subprocess.run(
        [sys.executable, "scripts/readme_commands.py", "README.md", name], cwd=ROOT, capture_output=True, text=True
    )
    assert tuple(printed.stdout.splitlines()) == block.commands


def test_blocks_joins_lines_and_drops_comments_and_what_is_not_run() -> None:
    text = (
        "<!-- block: a -->\n```bash\n# why\none \\\n  two\nthree # not run: needs a GPU\n```\n"
        "```yaml\nkey: value\n```\n```bash\nfour  # seen\n```\n"
    )
    assert blocks(text) == [
        Block("a", ("one two",), ("three # not run: needs a GPU",)),
        Block("", ("four  # seen",), ()),
    ]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_commands_of_the_readme(tmp_path: Path) -> None:
    # In one folder and in order, as a reader types them: later commands speak of earlier runs.
    home, cache = tmp_path / "home", tmp_path / "cache"
    folder = tmp_path / "work"
    home.mkdir()
    folder.mkdir()
    programs = Path(sys.executable).parent
    env = {
        **os.environ,
        "MLSCALE_CACHE": str(cache),
        "HOME": str(home),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
    }
    commands = [command for block in of_readers() for command in block.commands]
    for command in commands:
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"$ {command}\n{run.stdout}\n{run.stderr}"
    assert not [path for path in home.rglob("*") if path.is_file()]
    assert {path.name for path in folder.iterdir()} <= {"runs"}


def test_the_table_of_groups_is_what_is_shipped() -> None:
    reported = {}
    for line in README.splitlines():
        if match := re.match(r"\| ((?:`\w+` ?)+)\| (.*) \|$", line):
            for group in re.findall(r"`(\w+)`", match[1]):
                reported[group] = set(re.findall(r"`(\w+)`", match[2]))
    shipped = {
        folder.name: {file.stem for file in folder.glob("*.yaml")}
        for folder in (ROOT / "conf").iterdir()
        if folder.is_dir() and folder.name not in ("base", "command", "__pycache__")
    }
    assert reported == shipped


def test_links_and_pictures_of_the_readme_are_there() -> None:
    targets = re.findall(r"""\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)\"""", README)
    local = [target for pair in targets for target in pair if target and "://" not in target]
    assert len(local) > 80
    for target in local:
        path, _, anchor = target.partition("#")
        assert (ROOT / path).exists(), target
        headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}, (
            target
        )
    for picture in (ROOT / "docs/assets").glob("*.*g"):
        assert picture.stat().st_size <= 200_000, picture


def test_the_page_of_every_command_is_in_the_contents() -> None:
    assert [name for name in COMMANDS if f"](docs/{name}.md)" not in README] == []


def test_its_numbers_are_the_last_that_were_measured() -> None:
    assert render_readme(README, BENCHMARKS.read_text()) == README


def test_the_worst_of_the_last_entries_is_among_the_numbers() -> None:
    text = """
<!-- readme 2026-11-29 cost=1.10 cost=0.52 other=3 -->
<!-- readme 2026-11-24 cost=0.35..0.97 lone=2 -->
<!-- readme 2026-11-29 cost=1.33 percent=-0.27..0.39 -->
"""
    wanted = {"cost": "0.52 to 1.33", "other": "3", "lone": "2", "percent": "−0.27 to 0.39"}
    assert read_entries(text) == wanted
    with pytest.raises(ValueError, match="an entry is"):
        read_entries("<!-- readme yesterday cost=1 -->")
