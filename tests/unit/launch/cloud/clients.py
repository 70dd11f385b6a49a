"""Programs that stand where kubectl and sky are: they print what is given, and note how they were called."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPT = """#!/bin/sh
echo "${{0##*/}} $*" >> {log}
case "$*" in
{cases}
esac
"""


def install_client(folder: Path, name: str, printed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program on PATH that prints the text of the first pattern that its arguments match.

    Returns:
        the file in which it notes each call.
    """
    folder.mkdir(exist_ok=True)
    log = folder / f"{name}.calls"
    log.touch()
    cases = "\n".join(f"  {pattern}) printf '%s' {shlex.quote(text)} ;;" for pattern, text in printed.items())
    program = folder / name
    program.write_text(SCRIPT.format(log=shlex.quote(str(log)), cases=cases))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return log
