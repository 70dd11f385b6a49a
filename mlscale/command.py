"""A command that composes a config: help, Hydra's own flags, one job, or the jobs of a multirun."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager

from mlscale import api
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.offered_fixes import move_examples, offer_fixes
from mlscale.config.composition.reference_argument import restate_command
from mlscale.config.composition.request import Request
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.early_stop import choose_early_signals, handle_early_signals, ignore_late_signals
from mlscale.launch.external.external_launcher import (
    JOIN_TIMEOUT,
    ExternalRank,
    create_several_ranks_error,
    find_external_rank,
    refuse_external_rank,
)
from mlscale.launch.garbage_collection import defer_garbage_collection, is_own_process
from mlscale.launch.threads import wait_passively


def run_config_command(command: str, argv: Sequence[str]) -> int:
    """Run one command that composes a config; return its exit code.

    Raises:
        MLScaleError: what is wrong with it.
    """
    wait_passively()
    # Composing makes many objects that stay: no garbage collection until it is done.
    with defer_garbage_collection(), offer_fixes(argv, command):
        request = parse_command_line(command, argv)
    if request.help:
        from mlscale.help import format_config_command_help
        from mlscale.report.terminal import wrap_text

        print(wrap_text(format_config_command_help(command, request.roots)))
        return int(Exit.DONE)
    external = None
    if not request.flags:  # which print, and start nothing
        refuse_external_rank(command)
        external = find_external_rank() if command == "train" else None
    if external is not None and request.multirun and external.world_size > 1:
        raise create_several_ranks_error(external, "-m")
    if external is not None and external.rank and not request.multirun:
        return _follow_first_rank(external, request)
    if request.multirun or request.flags:
        # Also for Hydra's own flags: `--cfg job` on a run shows the config with the run's as its base.
        from mlscale.assembly.ready import resolve_base_config

        request = resolve_base_config(request)
        return _run_sweep(request) if request.multirun else _run_hydra_flags(request)
    try:
        with defer_garbage_collection(), offer_fixes(argv, command):
            cfg = api.compose_command_config(request)
    except MLScaleError as error:
        if external is not None:
            from mlscale.assembly.external_run import publish_start_error

            publish_start_error(external, _read_join_timeout(request), error)
        raise
    try:
        result = api.run_on_config(command, cfg)
    except MLScaleError as error:
        # A server, a monitor and a retraining look their model up themselves, and follow its alias.
        restate_command(error, command, request.typed)
        move_examples(error, request.typed)
        raise
    finally:
        if command == "train" and is_own_process():
            ignore_late_signals()
    from mlscale.report import print_result
    from mlscale.secrets.mask import Masker, mask_output

    with mask_output(Masker.create_for_run(cfg)):
        print_result(result, cfg.output)
    return int(Exit.DONE if result.ok else Exit.GATE)


def _follow_first_rank(external: ExternalRank, request: Request) -> int:
    """Train as a rank other than 0; return the exit code. Nothing is composed: rank 0 freezes one config for all."""
    from mlscale.assembly.external_run import follow_first_rank

    # Rank 0 prints the error of a stop that all ranks get.
    with handle_early_signals(choose_early_signals(external), is_reported=True):
        result = follow_first_rank(external, _read_join_timeout(request))
    return int(Exit.DONE if result.ok else Exit.GATE)


def _read_join_timeout(request: Request) -> float:
    """Return `launch.timeout_s` as typed; the value of a config is only known once it is composed."""
    try:
        return float(request.values.get("launch.timeout_s", JOIN_TIMEOUT))
    except ValueError:  # rank 0 reports it
        return JOIN_TIMEOUT


def _run_hydra_flags(request: Request) -> int:
    """Run Hydra's own flags; return the exit code."""
    from mlscale.config.composition.compose import run_by_hydra
    from mlscale.sweep import register_sweep_dir

    register_sweep_dir()
    with _mask_config_output(request):
        run_by_hydra(request, lambda cfg, overrides: None)
    return int(Exit.DONE)


def _mask_config_output(request: Request) -> AbstractContextManager[None]:
    """Return a context that masks what Hydra prints of a config; if it does not compose, only the environment's
    secrets.
    """
    from mlscale.config.composition.compose import compose_config
    from mlscale.secrets.mask import Masker, mask_output

    try:
        return mask_output(Masker.create_for_run(compose_config(request)))
    except MLScaleError:
        return mask_output(Masker.create_for_run({}))


def _run_sweep(request: Request) -> int:
    """Run every job of a multirun, also after one that fails; return the exit code."""
    from mlscale.assembly.sweep_check import check_sweep
    from mlscale.config.composition.compose import run_by_hydra
    from mlscale.sweep import Sweep, register_sweep_dir

    register_sweep_dir()
    # Before the sweep has a folder: a mistake that every job has is reported once and leaves nothing.
    with offer_fixes(request.typed, request.command):
        check_sweep(request)
    os.umask(0o077)  # Hydra makes the sweep's folder
    sweep = Sweep(request)
    api.print_shadowed_options(request)
    try:
        run_by_hydra(request, sweep.run_job)
        sweep.submit_frozen()
    # Also after Ctrl-C: the table of the jobs that are done is printed.
    finally:
        sweep.close()
    return sweep.exit_code
