"""The command line of looking verbs: sub-commands, options, examples, and errors that say what to type."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from mlscale.errors import MLScaleError


class Options(argparse.ArgumentParser):
    """An argument parser whose help ends with examples, and whose errors are ours."""

    def __init__(self, *, examples: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        if examples:
            kwargs["epilog"] = "examples:\n" + "\n".join("  " + line for line in examples.strip().splitlines())
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process."""
        raise MLScaleError(message, where=self.prog, fix=f"{self.prog} --help")
