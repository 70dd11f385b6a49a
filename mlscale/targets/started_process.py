"""Start a server as a process of its own, wait until it is ready, and end it at the end of a block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlscale.errors import Exit, MLScaleError
from mlscale.file_locks import make_scratch_folder
from mlscale.runs.host.supervised_process import start_supervised

_POLL_S, _END_S = 0.05, 10.0
_SHOWN = 12  # lines of a server's log that an error shows
_ABORTED = 128 + signal.SIGABRT  # as the supervisor returns it


@contextmanager
def start_process(
    command: Sequence[str],
    is_ready: Callable[[], bool],
    *,
    product: str,
    environment: Mapping[str, str] | None = None,
    wait_s: float = 120.0,
    at_end: Sequence[str] = (),
    starts: int = 1,
) -> Iterator[None]:
    """Run `command` while the block runs, and no longer than this process; the block begins once it is ready.

    Args:
        command: its words.
        is_ready: returns whether the server answers.
        product: its name, for messages.
        environment: variables besides this process's own.
        wait_s: the longest that it may take to become ready, seconds.
        at_end: a command that removes what its end leaves behind, such as a container.
        starts: how often it is started where it aborts (SIGABRT) before it is ready.

    Raises:
        MLScaleError: it ends before, or takes longer (exit code 4); the message has the end of its log.
    """
    with make_scratch_folder("server") as scratch:
        log = scratch / "log"
        for left in reversed(range(starts)):
            with (
                log.open("wb") as file,
                start_supervised(
                    command,
                    grace_s=_END_S,
                    output=file,
                    environment={**os.environ, **(environment or {})},
                    at_end=at_end,
                ) as process,
            ):
                if _wait_until_ready(process, is_ready, wait_s):
                    yield
                    return
                # Read before the process is ended: that returns another code.
                code = process.poll()
            if code != _ABORTED or not left:
                raise _build_start_error(product, code, wait_s, log)


def _wait_until_ready(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], wait_s: float) -> bool:
    """Return whether it is ready; False once it has ended, or takes longer."""
    begin = time.monotonic()
    while not is_ready():
        if process.poll() is not None or time.monotonic() - begin > wait_s:
            return False
        time.sleep(_POLL_S)
    return True


def _build_start_error(product: str, code: int | None, wait_s: float, log: Path) -> MLScaleError:
    what = f"is not ready after {wait_s:g} s" if code is None else f"ended with exit code {code}"
    return MLScaleError(
        f"{product} {what}",
        where="check=server",
        why="\n".join(log.read_text(errors="replace").strip().splitlines()[-_SHOWN:]) or "it wrote nothing",
        fix="check=none",
        exit=Exit.GATE,
    )


def find_free_port() -> int:
    """Return a port of this machine that nothing listens on now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
