"""Start a server as a process of its own, wait until it is ready, and end it at the end of a block."""

from __future__ import annotations

import os
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


@contextmanager
def start_process(
    command: Sequence[str],
    is_ready: Callable[[], bool],
    *,
    product: str,
    environment: Mapping[str, str] | None = None,
    wait_s: float = 120.0,
    at_end: Sequence[str] = (),
) -> Iterator[None]:
    """Run `command` while the block runs, and no longer than this process; the block begins once it is ready.

    Args:
        command: its words.
        is_ready: returns whether the server answers.
        product: its name, for messages.
        environment: variables besides this process's own.
        wait_s: the longest that it may take to become ready, seconds.
        at_end: a command that removes what its end leaves behind, such as a container.

    Raises:
        MLScaleError: it ends before, or takes longer (exit code 4); the message has the end of its log.
    """
    with make_scratch_folder("server") as scratch:
        log = scratch / "log"
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
            _wait_until_ready(process, is_ready, log, product, wait_s)
            yield


def _wait_until_ready(
    process: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path, product: str, wait_s: float
) -> None:
    begin = time.monotonic()
    while not is_ready():
        ended = process.poll() is not None
        if ended or time.monotonic() - begin > wait_s:
            lines = log.read_text(errors="replace").strip().splitlines()[-_SHOWN:]
            what = f"ended with exit code {process.returncode}" if ended else f"is not ready after {wait_s:g} s"
            raise MLScaleError(
                f"{product} {what}",
                where="check=server",
                why="\n".join(lines) or "it wrote nothing",
                fix="check=none",
                exit=Exit.GATE,
            )
        time.sleep(_POLL_S)


def find_free_port() -> int:
    """Return a port of this machine that nothing listens on now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
