"""The Python API: compose, run, load. The command line is argument parsing and printing on top of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlscale import commands
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.offered_fixes import offer_fixes
from mlscale.config.composition.request import Request
from mlscale.errors import MLScaleError
from mlscale.launch.external.external_launcher import refuse_external_rank
from mlscale.launch.garbage_collection import defer_garbage_collection
from mlscale.launch.job_environment import get_shipped_code
from mlscale.launch.threads import wait_passively
from mlscale.log_lines import use_log_format

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.report import Result

_busy: list[str] = []  # the commands that run in this process


def compose(overrides: Sequence[str] = (), *, command: str = "train") -> DictConfig:
    """Return the config of one job, composed and checked as on the command line, before anything heavy is loaded.

    Args:
        overrides: as typed on the command line: `["+recipe=resnet", "trainer.max_epochs=1"]`; `--config-dir DIR` may be
            among them.
        command: the command whose configuration it is.

    Returns:
        The configuration; interpolations are kept. It may be altered: `run` checks it again.

    Raises:
        MLScaleError: everything that is wrong with it, reported together.
    """
    # Both before torch is imported: OpenMP reads its wait policy once, and targets are searched on sys.path.
    make_user_code_importable()
    wait_passively()
    with defer_garbage_collection(), offer_fixes(overrides, command):
        return compose_command_config(_parse_overrides(command, overrides))


def run(command: str, config: DictConfig | Sequence[str] = ()) -> Result:
    """Run any command with a config: `run("evaluate", ["last"])` is `mlscale evaluate last`; `run("train", cfg)`
    trains.

    Args:
        command: train, evaluate, export, compress, estimate, profile, …: `mlscale --help` lists them.
        config: overrides as typed on the command line, or a configuration of `compose` for the same command, which may
            have been altered: it is checked again, and stays as it is.

    Returns:
        What the command line shows as a table: the metrics by name, and where the run is:
        `result.metrics["best_val/accuracy"]`, `result.artifacts["run"]`. A gate that fails is not an error:
        `result.ok` is False then.

    Raises:
        MLScaleError: everything that the command line would print: what is wrong with the configuration or the data,
            or what ended the run. A run that was interrupted has saved: `run("train", ["resume=last"])` resumes it.
    """
    from omegaconf import DictConfig

    if not isinstance(config, DictConfig):
        return run_on_config(command, _ensure_shareable(compose(config, command=command)))
    from mlscale.assembly.ready import raise_if_invalid as check_again
    from mlscale.assembly.ready import resolve_base_config

    if "derived" not in config:
        raise MLScaleError(
            "this is not a configuration of compose",
            where=f'mlscale.run("{command}", cfg)',
            why="it has no key 'derived', in which what was typed is kept",
            fix='mlscale.run("train", mlscale.compose(["+recipe=resnet"]))',
        )
    cfg = config.copy()
    request = resolve_base_config(_parse_overrides(command, cfg.derived.overrides or ()))
    # Emptied, because the check takes derived values that are filled in for typed ones.
    cfg.derived = dict.fromkeys(cfg.derived)
    return run_on_config(command, _ensure_shareable(check_again(cfg, request)))


def compose_command_config(request: Request) -> DictConfig:
    """Return the checked config of a command, based on that of a run if it names one; print which shipped options are
    shadowed.

    Raises:
        MLScaleError: everything that is wrong with it.
    """
    from mlscale.assembly.ready import compose_checked, resolve_base_config

    request = resolve_base_config(request)
    print_shadowed_options(request)
    return compose_checked(request)


def run_on_config(command: str, cfg: DictConfig) -> Result:
    """Run a command on a checked config. What it changes in this process, such as the permissions of new files, is
    restored.

    Raises:
        MLScaleError: what the command raises; or it is called by code that another command imports, or in one of
            several processes that another launcher started.
    """
    # Before anything is written: under torchrun every rank would make a run of its own.
    refuse_external_rank(command)
    log_format = use_log_format(cfg.get("log_format") or "text")
    with log_format, _refuse_nested_command(command), _restore_umask(), _convert_exit():
        return commands.run_checked_config(command, cfg)


def print_shadowed_options(request: Request) -> None:
    """Print each shipped option that a user's file replaces, on stderr."""
    for line in request.roots.list_shadowed():
        print(line, file=sys.stderr)


def make_user_code_importable() -> None:
    """Make the user's classes in the working folder importable: a console script does not search there."""
    # The empty string means the working folder, at any time.
    if "" not in sys.path and os.getcwd() not in sys.path:
        # A job imports the code that was shipped with it; the working folder has what was left out of the copy.
        sys.path.insert(len(sys.path) if get_shipped_code() else 0, os.getcwd())


def _parse_overrides(command: str, overrides: Sequence[str]) -> Request:
    entry = commands.find_command(command)
    if entry is None or not entry.has_config:
        working = ", ".join(name for name, other in commands.COMMANDS.items() if other.has_config)
        raise MLScaleError(
            f"'{command}' is not a command with a config",
            where="mlscale.run",
            why=f"those are: {working}",
            fix='mlscale.run("train", ["+recipe=resnet"])',
        )
    # A text is a sequence as well: each of its letters would be taken as an override.
    if isinstance(overrides, str):
        raise MLScaleError(
            "overrides are a list of texts", where=f"mlscale: {overrides!r}", fix=repr(overrides.split())
        )
    request = parse_command_line(command, list(overrides))
    if request.multirun or request.flags or request.help:
        raise MLScaleError(
            "flags are for the command line",
            where=f"mlscale: {' '.join(overrides)}",
            why="in Python a sweep is a loop, and a configuration is printed by OmegaConf.to_yaml",
            fix='[mlscale.run("train", ["+recipe=resnet", f"seed={seed}"]) for seed in (1, 2)]',
        )
    return request


def _ensure_shareable(cfg: DictConfig) -> DictConfig:
    """Return `cfg`, unless several processes would need a class that only this one has.

    Raises:
        MLScaleError: they would; a process of its own can't import what was typed into a notebook.
    """
    from mlscale.config.checks.local_code import list_targets

    mine = [target for target in list_targets(cfg) if target.startswith("__main__.")]
    # Any other value may mean several: "auto", -1, "2".
    if mine and (cfg.get("trainer") or {}).get("devices", 1) != 1:
        raise MLScaleError(
            f"{mine[0]} is known to this process alone",
            where="trainer.devices",
            why="each device has a process of its own, which imports the classes that it needs",
            fix="trainer.devices=1, or put the class into a file of this folder: model._target_=my_net.Net",
        )
    return cfg


@contextlib.contextmanager
def _refuse_nested_command(command: str) -> Iterator[None]:
    """Refuse what a script does that is imported while a command runs: its class is a `_target_`, and importing it runs
    the script, here or in a rank.
    """
    from mlscale.launch import rank

    # Ranks are forked from a fork server, where `_busy` is empty: they have a flag of their own. A third-party command
    # may run others: it was not imported as a script without a main guard.
    if (_busy and not commands.COMMANDS[_busy[-1]].module) or rank.is_rank_process():
        raise MLScaleError(
            f"mlscale is at work, and is asked to {command} by code that it imports",
            where=os.path.basename(getattr(sys.modules["__main__"], "__file__", "") or "a script"),
            why="a class of your script is imported by running the script",
            fix='write `if __name__ == "__main__":` above the calls of mlscale, or give the class a file of its own',
        )
    _busy.append(command)
    try:
        yield
    finally:
        _busy.remove(command)


@contextlib.contextmanager
def _convert_exit() -> Iterator[None]:
    """Raise KeyboardInterrupt for Lightning's exit after Ctrl-C, and restore the SIGINT handler that it changes."""
    # Python allows signal handlers to be set in the main thread only.
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        # A SystemExit of other origin, such as the user's own sys.exit(), passes.
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from end
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _restore_umask() -> Iterator[None]:
    # The umask can only be read by setting it, so it is set back at once.
    before = os.umask(0o077)
    os.umask(before)
    try:
        yield
    finally:
        os.umask(before)
