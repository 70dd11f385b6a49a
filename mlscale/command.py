"""A command that composes a config: help, Hydra's own flags, one job, or the jobs of a multirun."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager

from mlscale import api
from mlscale.config.composition.argv import Request, parse
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external_launcher import refuse_external_rank
from mlscale.launch.garbage_collection import put_off
from mlscale.launch.threads import wait_passively


def work(verb: str, argv: Sequence[str]) -> int:
    """Run one command that composes a config; return its exit code.

    Raises:
        MLScaleError: what is wrong with it.
    """
    wait_passively()
    # Composing makes many objects that stay: no garbage collection until it is done.
    with put_off():
        request = parse(verb, argv)
    if request.help:
        from mlscale.help import of_working_command

        print(of_working_command(verb, request.roots))
        return int(Exit.DONE)
    if not request.flags:  # which print, and start nothing
        refuse_external_rank(verb)
    if request.multirun or request.flags:
        # Also for Hydra's own flags: `--cfg job` on a run shows the config with the run's as its base.
        from mlscale.assembly.ready import on_its_run

        request = on_its_run(request)
        return _sweep(request) if request.multirun else _by_hydra(request)
    with put_off():
        cfg = api.checked(request)
    result = api.on(verb, cfg)
    from mlscale.report import emit
    from mlscale.secrets.mask import Masker, masked_output

    with masked_output(Masker.of(cfg)):
        emit(result, cfg.output)
    return int(Exit.DONE if result.ok else Exit.GATE)


def _by_hydra(request: Request) -> int:
    """Run Hydra's own flags; return the exit code."""
    from mlscale.config.composition.compose import run_by_hydra
    from mlscale.sweep import register_sweep_dir

    register_sweep_dir()
    with _masked(request):
        run_by_hydra(request, lambda cfg, overrides: None)
    return int(Exit.DONE)


def _masked(request: Request) -> AbstractContextManager[None]:
    """Return a context that masks what Hydra prints of a config; if it does not compose, only the environment's
    secrets.
    """
    from mlscale.config.composition.compose import compose
    from mlscale.secrets.mask import Masker, masked_output

    try:
        return masked_output(Masker.of(compose(request)))
    except MLScaleError:
        return masked_output(Masker.of({}))


def _sweep(request: Request) -> int:
    """Run every job of a multirun, also after one that fails; return the exit code."""
    from mlscale.assembly.sweep_check import check_sweep
    from mlscale.config.composition.compose import run_by_hydra
    from mlscale.sweep import Sweep, register_sweep_dir

    register_sweep_dir()
    # Before the sweep has a folder: a mistake that every job has is reported once and leaves nothing.
    check_sweep(request)
    os.umask(0o077)  # Hydra makes the sweep's folder
    sweep = Sweep(request)
    api.tell_what_is_shadowed(request)
    try:
        run_by_hydra(request, sweep.job)
    # Also after Ctrl-C: the table of the jobs that are done is printed.
    finally:
        sweep.close()
    return sweep.exit_code
