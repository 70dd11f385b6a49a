"""The command line of looking verbs: sub-commands, options, examples, and errors that say what to type."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from mlscale.config.suggestions.suggest import nearest
from mlscale.errors import MLScaleError

_CHOICE = re.compile(r"argument [a-z|]+: invalid choice: '(?P<typed>.*?)' \(choose from (?P<known>.*)\)")

_ELSEWHERE = {"remove": "rm", "delete": "rm", "list": "ls", "continue": "resume", "restart": "resume"}  # other words


class Options(argparse.ArgumentParser):
    """An argument parser whose help ends with examples, and whose errors are ours."""

    def __init__(self, *, examples: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        if examples:
            kwargs["epilog"] = "examples:\n" + "\n".join("  " + line for line in examples.strip().splitlines())
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process; a sub-command that was misspelt is named."""
        fix = f"{self.prog} --help"
        if match := _CHOICE.search(message):
            message = f"{self.prog} has no '{match['typed']}'"
            known = re.findall(r"\w+", match["known"])
            best = _ELSEWHERE.get(match["typed"]) or nearest(match["typed"], known)
            best = best if best in known else None
            fix = f"{self.prog} {best}" if best else fix
        raise MLScaleError(message, where=self.prog, fix=fix)
