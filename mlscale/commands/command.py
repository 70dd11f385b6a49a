"""What the command line knows of a command without importing its entry point."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """The help of a command.

    Attributes:
        summary: one line of help.
        working: composes a config and takes `key=value`; otherwise it takes sub-commands and options.
        examples: commands with what they do.
        module: of a third-party command, the module with its `run(cfg)`, which is imported when the command runs.
    """

    summary: str
    working: bool = True
    examples: tuple[tuple[str, str], ...] = ()
    module: str = ""
