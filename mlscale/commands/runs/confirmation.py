"""The question before something is removed for good, which only a person at a terminal is asked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from mlscale.commands.command import RUNS_DIR
from mlscale.commands.options import Options
from mlscale.errors import MLScaleError


def confirm_removal(
    what: str, shown: str, question: str, command: Sequence[str], settings: Sequence[str], *, preview: str = ""
) -> bool:
    """Return whether the user confirms a removal.

    Args:
        what: what is removed: runs, or checkpoints.
        shown: what would be removed, printed before the question.
        question: what is asked.
        command: the command line as typed.
        settings: `key=value` that the command needs besides, to be typed again.
        preview: the setting with which the command removes nothing; empty where it has none.

    Raises:
        MLScaleError: standard input is not a terminal; a script must not wait forever for an answer.
    """
    if not sys.stdin.isatty():
        again = [*command, *settings]
        fixes = [f"{shlex.join([*again, preview])}, which shows them"] if preview else []
        raise MLScaleError(
            f"removing {what} can't be undone",
            where=f"command line: {shlex.join(command)}",
            why="no terminal to ask on",
            fix="\n".join([*fixes, shlex.join([*again, "yes=true"])]),
        )
    print(shown, file=sys.stderr)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    # Anything else, also an empty line or the end of input, means no.
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def repeat_folder(options: Options) -> list[str]:
    """Return the setting for the folder of the runs, to be typed again, if it is not the default one."""
    return [] if options.runs_dir == RUNS_DIR.default else [f"{RUNS_DIR.name}={options.runs_dir}"]
