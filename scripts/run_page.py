"""Type the commands of a page of docs/ from top to bottom, in one shell, as a reader does; servers stay in the
background.

python -m scripts.run_page csv.md photos.md lightning-module.md        # in this environment
python -m scripts.run_page --install csv.md                            # in a clone and an environment of its own
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.docs_commands import ROOT, files
from scripts.readme_commands import blocks

_COMMENT = re.compile(r"\s+# .*$")
_MARK = "\x1e"  # between what two commands print
_SETTLE_S = 15  # what a server in the background prints belongs to it, and not to the next command
_START = f"set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\nprintf '{_MARK}'\n"


@dataclass(frozen=True)
class Typed:
    """A command, and what it printed on either stream."""

    command: str
    output: str


def main() -> None:
    """Run each page, and print what its last command printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+")
    parser.add_argument("--install", action="store_true", help="clone and install first, as the page has it")
    options = parser.parse_args()
    for page in options.pages:
        with tempfile.TemporaryDirectory(prefix="page-") as name:
            typed = run_page(ROOT / "docs" / page, Path(name), installs=options.install)
        print(f"{page}: {len(typed)} commands, the last one printed\n{typed[-1].output}")


def list_commands(page: Path, installs: bool = False) -> list[str]:
    """Return the commands of a page in order; with `installs` also those of its block `install`."""
    listed = []
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.name == "install":
            listed += [line.partition(" # not run:")[0].strip() for line in block.not_run] if installs else []
        else:
            listed += [_COMMENT.sub("", line) for line in block.commands]
    return listed


def run_page(page: Path, folder: Path, *, installs: bool = False) -> list[Typed]:
    """Type the commands of a page in an empty folder; return each with what it printed.

    Args:
        page: whose files are written first.
        folder: where everything happens.
        installs: clone this repository and install it there, too, by the page's own commands.

    Raises:
        AssertionError: a command failed.
    """
    written = files(page)
    if not installs:
        for name, text in written.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    return type_commands(list_commands(page, installs), folder, installs=installs, after_clone=written)


def type_commands(
    commands: Sequence[str], folder: Path, *, installs: bool = False, after_clone: Mapping[str, str] | None = None
) -> list[Typed]:
    """Type commands in one shell, in a folder; return each with what it printed.

    Args:
        commands: one that ends in `&` stays in the background until all are done.
        folder: where everything happens.
        installs: the commands make an environment of their own; else they are found in this one.
        after_clone: files to write once a repository was cloned: from there on the reader is in its folder.

    Raises:
        AssertionError: a command failed.
    """
    script = _START
    for command in commands:
        script += f"{_adapt(command)}\n"
        if command.endswith("&"):
            script += f"sleep {_SETTLE_S}\n"
        if command.startswith("git clone"):
            script += "".join(f"printf %s {shlex.quote(text)} > {name}\n" for name, text in (after_clone or {}).items())
        script += f"printf '{_MARK}'\n"
    port = str(_find_port())
    done = subprocess.run(
        ["bash", "-c", script.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("port=8000", f"port={port}")],
        cwd=folder, env=_build_environment(installs), stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    _, *outputs = done.stdout.replace(f"127.0.0.1:{port}", "127.0.0.1:8000").split(_MARK)
    failed = commands[min(len(outputs) - 1, len(commands) - 1)]
    assert done.returncode == 0, f"$ {failed}\n{outputs[-1] if outputs else done.stdout}"
    return [Typed(command, output.strip("\n")) for command, output in zip(commands, outputs, strict=False)]


def _adapt(command: str) -> str:
    """Return a command with this repository as what is cloned, and a server on a port of its own."""
    command = command.replace("<the address of this repository>", str(ROOT))
    server = command.startswith("mlscale serve ") and command.endswith("&")
    return f"{command.removesuffix('&')}port=8000 &" if server and "port=" not in command else command


def _build_environment(installs: bool) -> dict[str, str]:
    programs = "" if installs else f"{Path(sys.executable).parent}{os.pathsep}"
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**given, "PATH": f"{programs}{os.environ['PATH']}"}


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
