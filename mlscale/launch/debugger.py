"""Debug a run while it runs: `breakpoint()` on rank 0 only, and debuggers that attach to each rank."""

from __future__ import annotations

import contextlib
import os
import pdb
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from mlscale.errors import Exit, MLScaleError
from mlscale.export.required_extras import require_extra

_HOST = "127.0.0.1"


@contextlib.contextmanager
def enable_debugging(settings: Mapping[str, Any], rank: int, world_size: int) -> Iterator[None]:
    """Enable debugging during the block: `breakpoint()` opens a prompt on the terminal, or a debugger can attach.

    Args:
        settings: `debugger` of the config: port, wait.
        rank: of this process.
        world_size: processes of the run.

    Raises:
        MLScaleError: the port is taken, debugpy is not installed (exit code 5), or the prompt was left by `q` (130).
    """
    before = sys.breakpointhook
    if settings.get("port"):
        listen_for_debugger(int(settings["port"]) + rank, rank, wait=bool(settings.get("wait")))
    elif world_size > 1 and before is sys.__breakpointhook__ and "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _open_prompt if rank == 0 else _ignore_breakpoint
    try:
        yield
    except pdb.bdb.BdbQuit as quit_:  # type: ignore[attr-defined]  # pdb imports bdb, but does not list it
        raise MLScaleError("stopped at the debugger's prompt", exit=Exit.INTERRUPTED) from quit_
    finally:
        if not settings.get("port"):
            sys.breakpointhook = before


def listen_for_debugger(port: int, rank: int, *, wait: bool) -> None:
    """Let a debugger attach to this process at 127.0.0.1:`port`, by debugpy's protocol (DAP).

    Raises:
        MLScaleError: the port is taken, or debugpy is not installed (exit code 5).
    """
    require_extra("debug", "debugpy")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else it warns about frozen standard modules
    import debugpy

    debugpy.configure(subProcess=False)  # worker processes of a DataLoader are not debugged
    try:
        debugpy.listen((_HOST, port))
    except (RuntimeError, OSError) as error:
        raise MLScaleError(
            f"rank {rank} can't listen for a debugger on {_HOST}:{port}",
            where=f"debugger.port={port - rank}",
            why=" ".join(str(error).split())[:200],
            fix=f"debugger.port={port - rank + 100}",
            exit=Exit.ENVIRONMENT,
        ) from error
    print(
        f"debugger  rank {rank} listens on {_HOST}:{port}{', and waits for one to attach' if wait else ''}",
        file=sys.stderr,
        flush=True,
    )
    if wait:
        debugpy.wait_for_client()


def _open_prompt(*_: object, **__: object) -> None:
    """Open pdb on the terminal of the launcher, for the standard input of a rank is closed."""
    terminal = _open_terminal()
    if terminal is None:
        print(
            "breakpoint() is skipped, for lack of a terminal; debugger.port=5678 lets a debugger attach",
            file=sys.stderr,
            flush=True,
        )
        return
    # The frame above this one is the caller of `breakpoint()`.
    pdb.Pdb(stdin=terminal, stdout=sys.stdout).set_trace(sys._getframe(1))


def _ignore_breakpoint(*_: object, **__: object) -> None:
    """Ignore `breakpoint()`: other ranks wait for rank 0 at the next collective."""


def _open_terminal() -> TextIO | None:
    """Open the terminal of standard error or output for reading; None where neither is a terminal."""
    for number in (2, 1):
        with contextlib.suppress(OSError):
            return open(os.ttyname(number), encoding="utf-8")
    return None
