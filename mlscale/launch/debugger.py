"""Debug a run while it runs: `breakpoint()` on rank 0 only."""

from __future__ import annotations

import contextlib
import os
import pdb
import sys
from collections.abc import Iterator
from typing import TextIO

from mlscale.errors import Exit, MLScaleError


@contextlib.contextmanager
def enable_debugging(rank: int, world_size: int) -> Iterator[None]:
    """Let `breakpoint()` open a prompt on the terminal during the block, on rank 0 alone.

    Args:
        rank: of this process.
        world_size: processes of the run.

    Raises:
        MLScaleError: the prompt was left by `q` (exit code 130).
    """
    before = sys.breakpointhook
    if world_size > 1 and before is sys.__breakpointhook__ and "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _open_prompt if rank == 0 else _ignore_breakpoint
    try:
        yield
    except pdb.bdb.BdbQuit as quit_:  # type: ignore[attr-defined]  # pdb imports bdb, but does not list it
        raise MLScaleError("stopped at the debugger's prompt", exit=Exit.INTERRUPTED) from quit_
    finally:
        sys.breakpointhook = before


def _open_prompt(*_: object, **__: object) -> None:
    """Open pdb on the terminal of the launcher, for the standard input of a rank is closed."""
    terminal = _open_terminal()
    if terminal is None:
        print("breakpoint() is skipped, for lack of a terminal", file=sys.stderr, flush=True)
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
