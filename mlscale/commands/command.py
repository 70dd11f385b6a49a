"""The description of a command that the command line has without importing its entry point.

Commands that installed packages bring by the entry point group `mlscale.commands`.

An entry point names a `Command`, and the command the module that runs it. Packages are searched for `--help`, for
completion, and for a word that is not a built-in command; only the module with the `Command` is imported for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.local_paths import expect_local_path
from mlscale.config.schema.model_arguments import OF_THIRD_PARTY, REFERENCES
from mlscale.config.schema.roots import BASE_GROUPS, COMMAND_BASES
from mlscale.entry_points import create_load_error, get_package_name, read_entry_points
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

STAGES = {
    "train": "start a project, prepare its data, train",
    "measure": "know what a run costs, what slows it down, how good it is",
    "ship": "from a checkpoint to a version that can be served",
    "operate": "serve, load, monitor and retrain",
    "inspect": "look at configs, recipes, runs and the machine",
}
"""The groups of `mlscale --help` and of the docs, in their order."""
THIRD_PARTY = "from installed packages"
"""The group of third-party commands, the last one of `mlscale --help`."""
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Word:
    """An argument that is named without a key; `name=value` works, too.

    Attributes:
        example: a value that can be typed, shown where the word is missing.
        many: it may be given several times in a row.
    """

    name: str
    help: str
    example: str
    required: bool = True
    many: bool = False

    @property
    def usage(self) -> str:
        """The word as it is shown in the usage line."""
        text = self.name.upper() + (" …" if self.many else "")
        return text if self.required else f"[{text}]"


@dataclass(frozen=True)
class Key:
    """One `key=value`.

    Attributes:
        default: its type, unless it is None, is the key's type.
        example: a value that can be typed, for a key whose default is None or empty.
        many: takes a list, `[a,b]`, and may be repeated.
    """

    name: str
    help: str
    default: str | float | bool | None = None
    example: str = ""
    choices: tuple[str, ...] = ()
    type: type[str] | type[int] | type[float] | type[bool] | type[Path] = str
    many: bool = False

    @property
    def setting(self) -> str:
        """The key with its default, or with an example where the default can't be typed."""
        # `true`, as YAML and the command line write it, not Python's `True`.
        default = str(self.default).lower() if isinstance(self.default, bool) else self.default
        return f"{self.name}={self.example if default in (None, '') else default}"

    @property
    def default_value(self) -> object:
        """The value where the key is not typed."""
        return self.parse_value(str(self.default or "")) if self.many else self.default

    def parse_value(self, text: str) -> object:
        """Convert the text that was typed after the `=`.

        Raises:
            MLScaleError: it is of another type, or not one of the choices.
        """
        if self.many:
            return tuple(item.strip() for item in text.strip("[]").split(",") if item.strip())
        if self.choices and text not in self.choices:
            best = find_nearest(text, self.choices) or self.choices[0]
            raise self._make_value_error(text, " or ".join(self.choices), f"{self.name}={best}")
        if self.type is bool:
            if text.lower() not in _BOOLEANS:
                raise self._make_value_error(text, "true or false", f"{self.name}=true")
            return _BOOLEANS[text.lower()]
        if self.type is Path:
            expect_local_path(self.name, text, f"command line: {self.name}={text}", self.help)
        if self.type in (str, Path):
            return text
        try:
            number: float = int(text) if self.type is int else float(text)
        except ValueError:
            # Refused below, with the same message as a negative number.
            number = -1
        if not number >= 0:  # which NaN isn't, either
            kind = "a whole number, 0 or more" if self.type is int else "a number, 0 or more"
            raise self._make_value_error(text, kind, self.setting)
        return number

    def _make_value_error(self, text: str, wanted: str, fix: str) -> MLScaleError:
        return MLScaleError(f"'{self.name}' must be {wanted}, not the text '{text}'", where="command line", fix=fix)


@dataclass(frozen=True)
class Action:
    """One thing that a command does: `ls` of `mlscale runs ls`.

    Attributes:
        examples: commands with what they do.
        overrides: takes settings of a config, too, which are passed on as they are.
        config_dir: takes Hydra's flag `--config-dir`.
    """

    summary: str
    words: tuple[Word, ...] = ()
    keys: tuple[Key, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    overrides: bool = False
    config_dir: bool = False


OUTPUT = Key("output", "table or json", "table", choices=("table", "json"))
RUNS_DIR = Key("runs_dir", "the folder of the runs", "runs", type=Path)


@dataclass(frozen=True)
class Command:
    """The help of a command.

    Attributes:
        summary: one line of help.
        stage: the group of the help that it is in, one of STAGES or THIRD_PARTY.
        examples: commands with what they do.
        actions: of a command that composes no config; a single action has the name ''.
        module: of a third-party command, the module with its `run(cfg)`, which is imported when the command runs.
        takes_model: of a third-party command, whether its first argument is a trained model, which `cfg.ref` then is.
    """

    summary: str
    stage: str = THIRD_PARTY
    examples: tuple[tuple[str, str], ...] = ()
    actions: Mapping[str, Action] = field(default_factory=dict)
    module: str = ""
    takes_model: bool = False

    @property
    def has_config(self) -> bool:
        """True for a command that composes a config and takes its keys."""
        return not self.actions


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
        raise create_load_error("command", point, f"{type(error).__name__}: {error}") from error
    if not isinstance(command, Command) or not command.module:
        raise create_load_error(
            "command", point, f"{point.value} is not an mlscale.commands.command.Command with a module"
        )
    commands[point.name] = command
    # Its config has the base of a training run, see `_store_primary` in config/composition/compose.py.
    COMMAND_BASES[point.name] = "run"
    if command.takes_model:
        REFERENCES[point.name] = OF_THIRD_PARTY
    _package_by_command[point.name] = get_package_name(point)
