"""Start a process that ends with its block, and with this process, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_AT_END_S = 90.0  # the supervisor's own limit of `at_end`, and some seconds


@contextmanager
def start_supervised(
    command: Sequence[str],
    *,
    grace_s: float,
    output: IO[bytes],
    errors: IO[bytes] | int = subprocess.STDOUT,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    at_end: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` while the block runs, in a group of its own that Ctrl-C does not reach.

    It ends by SIGTERM, after `grace_s` by SIGKILL, and with it its own processes. The same happens where this process
    is killed by SIGKILL: the yielded process is a supervisor, which passes on SIGTERM and SIGUSR1 and returns the
    command's exit code.

    Args:
        command: its words.
        grace_s: seconds between SIGTERM and SIGKILL.
        output: the file of its stdout.
        errors: that of its stderr.
        environment: all variables of the process; None for those of this one.
        folder: its working folder.
        at_end: a command that removes what the process leaves behind, such as a container.
    """
    plan = json.dumps({"grace_s": grace_s, "at_end": list(at_end)})
    process = subprocess.Popen(
        # -I -S: neither the user's variables nor site packages, so that it starts within milliseconds.
        [sys.executable, "-I", "-S", str(_SUPERVISOR), plan, *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        env=dict(os.environ if environment is None else environment),
        cwd=folder,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(grace_s + _AT_END_S)
        finally:
            # Only where it hangs itself.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
