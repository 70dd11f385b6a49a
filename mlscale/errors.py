"""Every error that a user may see: what is wrong, where, why, and what to type to fix it.

Raised anywhere; turned into an exit code in `cli.py` alone.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")


class Exit(IntEnum):
    """The exit codes of the command line."""

    DONE = 0
    # Stable: scripts and schedulers branch on these numbers (docs/errors.md).
    BUG = 1
    USER = 2
    DIVERGED = 3
    GATE = 4
    ENVIRONMENT = 5
    # EX_TEMPFAIL of sysexits.h, "try again later": the run was stopped and has saved, and can be resumed.
    SAVED = 75
    # 128 + the signal, as shells report it: SIGINT is 2, SIGTERM 15.
    INTERRUPTED = 130
    TERMINATED = 143


STOPS = (Exit.SAVED, Exit.INTERRUPTED, Exit.TERMINATED)
"""The exit codes of what was stopped, and did not fail."""


class MLScaleError(Exception):
    """An error with its remedy.

    Args:
        what: the fact, one sentence.
        where: file and key path, e.g. ``recipes/recipe/resnet.yaml: optimizer.lr``.
        why: the reason, when it is not plain from `what`.
        fix: what to type; an override, a command, or a line of YAML.
        exit: the exit code the command line ends with.

    Attributes:
        unbuilt: it was raised while the run's objects were built: nothing has run yet.
        is_reported: another process prints it, so this one only ends with its exit code.
        run: the folder of the run that it ended; "" before there is one.
    """

    unbuilt = False
    is_reported = False
    run = ""

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "", exit: Exit = Exit.USER) -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.fix, self.exit = what, where, why, fix, exit

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {label} {text}" for label, text in (("where:", self.where), ("why:  ", self.why)) if text]
        if self.fix:
            # A fix of several lines stays aligned, so that each can be copied.
            lines.append("  fix:   " + self.fix.replace("\n", "\n         "))
        return "\n".join(lines)

    def mask_texts(self, mask: Callable[[str], str]) -> MLScaleError:
        """Return the same error with `mask` applied to every text, for messages that quote what was typed."""
        texts = {name: mask(getattr(self, name)) for name in ("where", "why", "fix")}
        error = MLScaleError(mask(self.what), **texts, exit=self.exit)
        error.unbuilt, error.run = self.unbuilt, self.run
        return error

    def build_document(self) -> dict[str, Any]:
        """Return the error for programs: exit code, `what`, `where`, `why` and `fix` of each problem, and the run."""
        problems = [
            {name: getattr(problem, name) for name in ("what", "where", "why", "fix")}
            for problem in self.list_problems()
        ]
        return {"exit_code": int(self.exit), "problems": problems, "run": self.run or None}

    def list_problems(self) -> Sequence[MLScaleError]:
        """Return the problems that it reports: itself, unless it holds several."""
        return (self,)

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows: the message, as in a terminal; the traceback only on request."""
        if os.environ.get("MLSCALE_TRACEBACK"):
            return traceback.format_exception(self)
        return [f"error: {self}"]

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries by pickle, which would call `__init__` with `args` alone and lose the keyword
        # arguments.
        return _restore_error, (type(self), self.__dict__.copy(), self.args)


def _restore_error(kind: type[MLScaleError], state: dict[str, object], args: tuple[object, ...]) -> MLScaleError:
    # Without `__init__`: subclasses take other arguments, and the state is complete.
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class Problems(MLScaleError):  # noqa: N818 - it holds errors, it is none of its own
    """All the problems of one tier, reported together."""

    def __init__(self, problems: Sequence[MLScaleError]) -> None:
        self.problems = tuple(problems)
        first, others = self.problems[0], len(self.problems) - 1
        # A line of a journal or a page has room for one, and a bare number names no cause.
        more = f", and {others} more problem{'s' if others != 1 else ''}" if others else ""
        super().__init__(f"{first.what}{more}", exit=first.exit)

    def list_problems(self) -> Sequence[MLScaleError]:
        """Return all of them."""
        return self.problems

    def mask_texts(self, mask: Callable[[str], str]) -> MLScaleError:
        """Return the same problems with `mask` applied to every text."""
        masked = Problems([problem.mask_texts(mask) for problem in self.problems])
        masked.run = self.run
        return masked

    def __str__(self) -> str:
        return "\n\n".join(str(problem) for problem in self.problems)


def describe_wrong_content(error: Exception) -> str:
    """Return what is wrong with the content of a file, by the error of what parsed it, without Python's words."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error) if isinstance(error, ValueError | OSError) else "it is of another form"


def raise_all(problems: Sequence[MLScaleError]) -> None:
    """Raise the collected problems: nothing for none, the problem itself for one, all of them together otherwise."""
    # Splits that share a setting fail alike: what is the same to the reader is written once.
    different = list({str(problem): problem for problem in problems}.values())
    if len(different) == 1:
        raise different[0]
    if different:
        raise Problems(different)


def call_all(actions: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Call every action, and raise all their problems together; return the results by name."""
    done: dict[str, T] = {}
    problems: list[MLScaleError] = []
    for name, action in actions.items():
        try:
            done[name] = action()
        except Problems as several:
            problems += several.problems
        except MLScaleError as problem:
            problems.append(problem)
    raise_all(problems)
    return done
