"""Run the client of a platform: kubectl, sky."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence

from mlscale.errors import Exit, MLScaleError

_MAX_OUTPUT = 600


def has_client(words: Sequence[str]) -> bool:
    """Return True if the program of a command is installed."""
    return shutil.which(words[0]) is not None


def run_client(words: Sequence[str]) -> str:
    """Run a command of a client, and return what it prints.

    Raises:
        MLScaleError: it fails (exit code 5).
    """
    # Without a terminal: a client that asks for a login would wait for ever.
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise MLScaleError(
            f"{words[0]} ended with exit code {done.returncode}",
            where=shlex.join(words),
            why=" | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])[-_MAX_OUTPUT:],
            fix=f"{shlex.join(words)}, once {words[0]} reaches its server",
            exit=Exit.ENVIRONMENT,
        )
    return done.stdout
