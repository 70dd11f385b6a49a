"""The commands, a package each. `call` runs one from Python; the command line runs them for people."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from mlscale.commands import (
    compress,
    config,
    env,
    estimate,
    evaluate,
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

    from mlscale.launch.background_command import Background
    from mlscale.report import Result

COMMANDS: dict[str, Command] = {
    "train": train.COMMAND,
    "evaluate": evaluate.COMMAND,
    "predict": predict.COMMAND,
    "compress": compress.COMMAND,
    "export": export.COMMAND,
    "prepare": prepare.COMMAND,
    "estimate": estimate.COMMAND,
    "serve": serve.COMMAND,
    "loadtest": loadtest.COMMAND,
    "retrain": retrain.COMMAND,
    "profile": profile.COMMAND,
    "lifecycle": lifecycle.COMMAND,
    "verify-resume": verify_resume.COMMAND,
    "monitor": monitor.COMMAND,
    "config": config.COMMAND,
    "recipes": recipes.COMMAND,
    "runs": runs.COMMAND,
    "versions": versions.COMMAND,
    "init": init.COMMAND,
    "env": env.COMMAND,
}


def find_command(name: str) -> Command | None:
    """Return a built-in or third-party command; installed packages are only searched for a name that is not built in.

    Raises:
        MLScaleError: a package has a command of this name, which does not load.
    """
    if name not in COMMANDS:
        from mlscale.commands.third_party import register_command

        register_command(name, COMMANDS)
    return COMMANDS.get(name)


def entry(command: str) -> ModuleType:
    """Import the entry point of a command."""
    return import_module(COMMANDS[command].module or f"mlscale.commands.{command.replace('-', '_')}.entry")


def call(verb: str, overrides: Sequence[str] = ()) -> Result:
    """Run a working verb as the command line would, and return its result.

    Raises:
        MLScaleError: everything that the command line would print.
    """
    from mlscale.assembly.ready import ready

    return run(verb, ready(verb, overrides))


def background(verb: str, overrides: Sequence[str], folder: Path) -> AbstractContextManager[Background]:
    """Run a verb that stays (a server, load, a watch) as a command of its own, which ends with the `with` block.

    Args:
        folder: where what it prints is kept, `<verb>.out` and `<verb>.log`.
    """
    from mlscale.launch.background_command import background as started

    return started([verb, *overrides], folder)


def run(verb: str, cfg: DictConfig) -> Result:
    """Run a working verb on a config that was checked; what it prints shows no secrets."""
    from mlscale.launch.socket_paths import shorten_socket_paths
    from mlscale.secrets.mask import Masker, masked_output

    shorten_socket_paths()  # before anything starts a process
    with masked_output(Masker.of(cfg)):
        result: Result = entry(verb).run(cfg)
    return result
