"""The commands, a package each. `run_command` runs one from Python; the command line runs them for users."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from mlscale.commands import (
    completion,
    compress,
    config,
    data,
    drill,
    env,
    estimate,
    evaluate,
    events,
    export,
    init,
    lifecycle,
    loadtest,
    monitor,
    predict,
    prepare,
    profile,
    recipes,
    retrain,
    runs,
    serve,
    train,
    verify_resume,
    versions,
)
from mlscale.commands.command import Command

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from mlscale.launch.background_command import BackgroundCommand
    from mlscale.report import Result

# In the order of `--help` within a stage. Third-party commands are added to it.
COMMANDS: dict[str, Command] = {
    "init": init.COMMAND,
    "prepare": prepare.COMMAND,
    "data": data.COMMAND,
    "train": train.COMMAND,
    "estimate": estimate.COMMAND,
    "profile": profile.COMMAND,
    "evaluate": evaluate.COMMAND,
    "verify-resume": verify_resume.COMMAND,
    "drill": drill.COMMAND,
    "compress": compress.COMMAND,
    "export": export.COMMAND,
    "versions": versions.COMMAND,
    "predict": predict.COMMAND,
    "serve": serve.COMMAND,
    "loadtest": loadtest.COMMAND,
    "events": events.COMMAND,
    "monitor": monitor.COMMAND,
    "retrain": retrain.COMMAND,
    "lifecycle": lifecycle.COMMAND,
    "config": config.COMMAND,
    "recipes": recipes.COMMAND,
    "runs": runs.COMMAND,
    "env": env.COMMAND,
    "completion": completion.COMMAND,
}


def find_command(name: str) -> Command | None:
    """Return a built-in or third-party command; installed packages are only searched for a name that is not built in.

    Raises:
        MLScaleError: a package has a command of this name, which does not load.
    """
    # Searching the installed packages takes time, which built-in commands need not wait for.
    if name not in COMMANDS:
        from mlscale.commands.command import register_command

        register_command(name, COMMANDS)
    return COMMANDS.get(name)


def import_entry_point(command: str) -> ModuleType:
    """Import the entry point of a command."""
    # Imported on use: the entry point of most commands imports torch.
    return import_module(COMMANDS[command].module or f"mlscale.commands.{command.replace('-', '_')}.entry")


def run_command(command: str, overrides: Sequence[str] = ()) -> Result:
    """Run a command with a config as the command line would, and return its result.

    Raises:
        MLScaleError: everything that the command line would print.
    """
    from mlscale.assembly.ready import compose_from_overrides

    return run_checked_config(command, compose_from_overrides(command, overrides))


def start_in_background(
    command: str, overrides: Sequence[str], folder: Path
) -> AbstractContextManager[BackgroundCommand]:
    """Run a command that keeps running (a server, load, a monitor) as a process, which ends with the `with` block.

    Args:
        folder: gets its output, `<command>.out` and `<command>.log`.
    """
    from mlscale.launch.background_command import start_background_command as started

    return started([command, *overrides], folder)


def run_checked_config(command: str, cfg: DictConfig) -> Result:
    """Run a command on a checked config; its output shows no secrets."""
    from mlscale.secrets.mask import Masker, mask_output

    with mask_output(Masker.create_for_run(cfg)):
        result: Result = import_entry_point(command).run(cfg)
    return result if result.overrides else replace(result, overrides=list(cfg.derived.get("overrides") or ()))
