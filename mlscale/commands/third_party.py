"""Commands that installed packages bring by the entry point group `mlscale.commands`.

An entry point names a `Command`, and the command the module that runs it. Packages are searched for `--help`, for
completion, and for a word that is not a built-in command; only the module with the `Command` is imported for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.commands.command import Command
from mlscale.config.schema.model_arguments import OF_THIRD_PARTY, REFERENCES
from mlscale.config.schema.roots import BASE_GROUPS, COMMAND_BASES
from mlscale.entry_points import get_package_name, read_entry_points
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "mlscale.commands"
_RESERVED_WORDS = ("help", "completion", *BASE_GROUPS)  # words that mean something else on a command line
_package_by_command: dict[str, str] = {}  # of the commands that were added


def register_command(name: str, commands: dict[str, Command]) -> None:
    """Add the third-party command of this name to `commands`, if a package has one.

    Raises:
        MLScaleError: it does not load.
    """
    for point in read_entry_points(ENTRY_POINT_GROUP):
        # Built-in commands can't be replaced; of two packages with the same command the first one is taken.
        if point.name == name and name not in commands and name not in _RESERVED_WORDS:
            _register_entry_point(point, commands)


def register_commands(commands: dict[str, Command]) -> list[str]:
    """Add all third-party commands to `commands`.

    Returns:
        A line for each that is left out, with its package and a fix.
    """
    warnings = []
    for point in read_entry_points(ENTRY_POINT_GROUP):
        # Registered before, when a word was searched: not a conflict with itself.
        if _package_by_command.get(point.name) == get_package_name(point):
            continue
        try:
            _raise_if_taken(point, commands)
            _register_entry_point(point, commands)
        except MLScaleError as error:
            why = f" ({error.why})" if error.why else ""
            warnings.append(f"{error.where}: {error.what}{why}; {error.fix}")
    return warnings


def _raise_if_taken(point: EntryPoint, commands: dict[str, Command]) -> None:
    if point.name not in commands and point.name not in _RESERVED_WORDS:
        return
    other = _package_by_command.get(point.name)
    raise MLScaleError(
        f"the command '{point.name}' is left out: "
        + (f"package {other} has one of this name" if other else "the name is mlscale's own"),
        where=f"package {get_package_name(point)}",
        fix=f"pip uninstall {get_package_name(point)}, or rename the entry point '{point.name}' of {ENTRY_POINT_GROUP}",
    )


def _register_entry_point(point: EntryPoint, commands: dict[str, Command]) -> None:
    try:
        command = point.load()
    # Importing code of another package can raise anything; `--help` must still print the rest.
    except Exception as error:
        raise _make_load_error(point, f"{type(error).__name__}: {error}") from error
    if not isinstance(command, Command) or not command.module:
        raise _make_load_error(point, f"{point.value} is not an mlscale.commands.command.Command with a module")
    commands[point.name] = command
    # Its config has the base of a training run, see `_store_primary` in config/composition/compose.py.
    COMMAND_BASES[point.name] = "run"
    if command.takes_model:
        REFERENCES[point.name] = OF_THIRD_PARTY
    _package_by_command[point.name] = get_package_name(point)


def _make_load_error(point: EntryPoint, why: str) -> MLScaleError:
    return MLScaleError(
        f"the command '{point.name}' does not load",
        where=f"package {get_package_name(point)}",
        why=" ".join(why.split()),
        fix=f"pip uninstall {get_package_name(point)}, or correct the entry point {point.name} = {point.value}",
        exit=Exit.ENVIRONMENT,
    )
