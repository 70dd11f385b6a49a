"""Run `mlscale …` as a user does, and read its result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlscale.errors import Exit


class CheckError(Exception):
    """A command that failed.

    Attributes:
        is_environment: the machine lacks what it takes.
    """

    def __init__(self, code: int, printed: str) -> None:
        super().__init__(printed)
        self.is_environment = code == Exit.ENVIRONMENT


def run_mlscale(folder: Path, *words: str) -> dict[str, Any]:
    """Return the result of a command.

    Raises:
        CheckError: it ended with another code than 0.
    """
    command = [sys.executable, "-m", "mlscale", *words, "output=json"]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sentence = json.loads(done.stdout).get("sentence") if done.stdout.startswith("{") else None
        lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "  why:"))]
        error = "; ".join(line.partition(":")[2].strip() for line in lines)
        raise CheckError(done.returncode, sentence or error or done.stderr[-400:])
    result: dict[str, Any] = json.loads(done.stdout)
    return result
