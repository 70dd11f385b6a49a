"""Pages of the docs run from top to bottom, each in a folder of its own; `test_docs.py` reads all that pages type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mlscale
from scripts.docs_commands import ROOT, commands, files
from scripts.run_page import list_commands, run_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# Pages whose commands run from top to bottom, in a folder of their own.
RUN = (
    "tutorial.md",
    "cookbook.md",
    "init.md",
    "trackers.md",
    "coming-from-lightning.md",
    "debugging.md",
    "image-tables.md",
    "text.md",
)
# From a clone to an answer over HTTP, for a newcomer.
FIRST_HOUR = ("csv.md", "photos.md", "lightning-module.md")


@pytest.mark.parametrize("page", FIRST_HOUR)
def test_the_first_hour_ends_with_an_answer(page: str, folder: Path) -> None:
    path = ROOT / "docs" / page
    assert len(list_commands(path, installs=True)) <= 10
    *_, last = run_page(path, folder)
    assert last.command.startswith("curl ")
    assert re.search(r'"predictions":\[\{"id":"\w+","label":"\w+","class":\d', last.output)


@pytest.mark.parametrize("page", [name for name in RUN if (ROOT / "docs" / name).is_file()])
def test_the_commands_of_a_page_run(page: str, folder: Path) -> None:
    for name, text in files(ROOT / "docs" / page).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    if page in ("trackers.md", "coming-from-lightning.md"):  # they speak of a run
        mlscale.run("train", ["+recipe=resnet", "model=mlp", "debug=fast"])
    programs = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    typed = [command for command in commands(ROOT / "docs" / page) if command.run]
    assert typed
    where = folder
    for command in typed:
        if command.text.startswith("cd "):
            where = where / command.text.removeprefix("cd ")
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.text],
            cwd=where, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command.text}\n{done.stdout}\n{done.stderr}"
