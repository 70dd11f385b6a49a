"""A working verb's command: help, Hydra's own flags, one job, or the jobs of a multirun."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlscale import verbs
from mlscale.config.argv import Request, parse
from mlscale.errors import Exit

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.report import Result


def work(verb: str, argv: Sequence[str]) -> int:
    """Run one command of a working verb; returns its exit code.

    Raises:
        MLScaleError: what is wrong with it.
    """
    request = parse(verb, argv)
    if request.help:
        from mlscale.help import of_verb

        print(of_verb(verb, request.roots))
        return int(Exit.DONE)
    from mlscale.config.ready import compose_checked, on_its_run

    request = on_its_run(request)
    if request.multirun:
        return _sweep(request)
    if request.flags:
        from mlscale.config.compose import run_by_hydra

        run_by_hydra(request, lambda cfg, overrides: None)
        return int(Exit.DONE)
    _say_what_is_shadowed(request)
    cfg = compose_checked(request)
    result = verbs.run(verb, cfg)
    _show(result, cfg)
    return int(Exit.DONE if result.ok else Exit.GATE)


def _sweep(request: Request) -> int:
    """Every job of a multirun; a job that fails does not end it."""
    from mlscale.config.compose import run_by_hydra
    from mlscale.sweep import Sweep

    sweep = Sweep(request)
    _say_what_is_shadowed(request)
    try:
        run_by_hydra(request, sweep.job)
    finally:
        sweep.close()
    return sweep.exit_code


def _show(result: Result, cfg: DictConfig) -> None:
    from mlscale.report import emit

    emit(result, cfg.output)


def _say_what_is_shadowed(request: Request) -> None:
    for line in request.roots.shadowed():
        print(line, file=sys.stderr)
