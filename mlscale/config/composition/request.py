"""A command line that composes a config, in the form that Hydra takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlscale.config.schema.roots import Roots

# Hydra applies appended groups in their order on the command line; a fixed order makes it irrelevant there: a debug
# level overrides every recipe.
APPENDED = ("recipe", "tuned", "debug", "sweep")


@dataclass(frozen=True)
class Request:
    """One command that composes a config, ready for Hydra.

    Attributes:
        typed: the overrides as they were typed, for run.json and messages.
        overrides: the same for Hydra.
        flags: Hydra's own flags (`--cfg job`, `--info`, …), untouched.
    """

    command: str
    typed: tuple[str, ...]
    overrides: tuple[str, ...]
    roots: Roots
    flags: tuple[str, ...] = ()
    multirun: bool = False
    help: bool = False
    values: dict[str, str] = field(default_factory=dict)
