"""The help texts. They teach by example, and import neither Hydra nor torch."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mlscale.commands import COMMANDS
from mlscale.commands.command import STAGES, THIRD_PARTY, Action, register_commands
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.model_arguments import REFERENCES
from mlscale.config.schema.roots import (
    BASE_GROUPS,
    COMMAND_BASES,
    COMMAND_GROUP,
    TAKES_MODEL,
    Roots,
    find_roots,
    get_shipped_folder,
)
from mlscale.errors import MLScaleError

Examples = Sequence[tuple[str, str]]

_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?: +(?P<value>[^#\s][^#]*?))?(?: *# ?(?P<text>.*))?$")
_MOST_USAGE = 60  # characters of the names of actions, in a line of usage
_WIDEST = 34  # characters of the longest setting that comments are aligned to
_FLAGS = (
    ("-m, --multirun", "run one job for each combination of a=1,2 b=x,y"),
    ("--config-dir DIR", "a folder of your own groups and recipes; may be given several times"),
    ("--cfg job [--resolve]", "print the composed config and stop"),
    ("--info [searchpath]", "how Hydra came to the config: search path, defaults tree, plugins"),
    ("--hydra-help", "Hydra's own help"),
)


def format_version() -> str:
    """Return the version line: `mlscale 0.2.0`."""
    from importlib.metadata import version as installed  # 20 ms, which `--help` and a typo need not wait for

    return f"mlscale {installed('mlscale')}"


def format_overview() -> str:
    """Return the text of `mlscale --help`: the commands, grouped by stage.

    A third-party command that can't be offered is reported on stderr.
    """
    for warning in register_commands(COMMANDS):
        print(f"warning   {warning}", file=sys.stderr)
    lines = [
        "mlscale: one YAML recipe, from proof of concept to production",
        "",
        "usage: mlscale [command] [key=value …]      (also: python -m mlscale …)",
        "",
        "first:",
        "  mlscale +recipe=resnet                 train a small ResNet on handwritten digits, a minute on a laptop",
        "  mlscale env                            what works on this machine",
    ]
    for stage, purpose in STAGES.items():
        members = [(name, command) for name, command in COMMANDS.items() if command.stage == stage]
        lines += ["", f"{stage}: {purpose}", *(f"  {name:<14} {command.summary}" for name, command in members)]
    if third_party := [(name, command) for name, command in COMMANDS.items() if command.stage == THIRD_PARTY]:
        lines += ["", f"{THIRD_PARTY}:", *(f"  {name:<14} {command.summary}" for name, command in third_party)]
    return "\n".join([*lines, "", "mlscale COMMAND --help shows what a command takes, with examples."])


def format_config_command_help(command: str, roots: Roots) -> str:
    """Return the help of a command that composes a config: examples, its own keys, and where groups are listed."""
    of_a_run = "[recipe=NAME] [group=option …] " if COMMAND_BASES[command] == "run" else ""
    first = f"{REFERENCES[command].usage} " if command in REFERENCES else ""
    usage = f"usage: mlscale {'[train]' if command == 'train' else command} {first}{of_a_run}[key=value …] [flags]"
    lines = _format_heading(command, COMMANDS[command].summary, usage, COMMANDS[command].examples)
    if settings := _format_settings(command):
        lines += ["", "keys:", *("  " + line for line in settings)]
    if command != "train":
        every_key = f"mlscale config show command={command}"
        return "\n".join([*lines, "", f"groups and flags: mlscale train --help; every key: {every_key}"])
    lines += ["", "recipes and groups (mlscale config show +recipe=NAME prints every key):"]
    groups = roots.get_command_groups(command)
    order = ["recipe", *BASE_GROUPS, *(name for name in groups if name not in ("recipe", "base", *BASE_GROUPS))]
    lines += [f"  {group:<10} {', '.join(groups[group])}" for group in order if group in groups]
    return "\n".join([*lines, "", "flags:", *(f"  {flag:<22} {what}" for flag, what in _FLAGS)])


def format_action_command_help(command: str, words: Sequence[str]) -> str:
    """Return the help of a command that composes no config, or of the action that the words name."""
    about = COMMANDS[command]
    if "" in about.actions:
        return _format_action_help(f"mlscale {command}", about.actions[""], about.examples)
    if named := next((word for word in words if word in about.actions), None):
        action = about.actions[named]
        return _format_action_help(f"mlscale {command} {named}", action, action.examples)
    # Many are listed below, and would not fit a line.
    actions = "|".join(about.actions)
    usage = f"usage: mlscale {command} {actions if len(actions) < _MOST_USAGE else 'ACTION'} …"
    lines = _format_heading(command, about.summary, usage, about.examples)
    width = max(map(len, about.actions))
    lines += ["", "it takes:", *(f"  {name:<{width}}  {action.summary}" for name, action in about.actions.items())]
    return "\n".join([*lines, "", f"mlscale {command} {next(iter(about.actions))} --help shows its keys."])


def _format_action_help(program: str, action: Action, examples: Examples) -> str:
    words = "".join(f" {word.usage}" for word in action.words)
    keys = " [key=value …]" if action.keys or action.overrides else ""
    flags = " [--config-dir DIR]" if action.config_dir else ""
    usage = f"usage: {program}{words}{keys}{flags}"
    lines = _format_heading(program.removeprefix("mlscale "), action.summary, usage, examples)
    if action.words:
        lines += ["", "words:", *_align_rows([(word.name.upper(), word.help) for word in action.words])]
    if action.keys:
        lines += ["", "keys:", *_align_rows([(key.setting, key.help) for key in action.keys])]
    if action.overrides:
        lines += ["", "any key or group of the config, too: mlscale train --help"]
    return "\n".join(lines)


def _format_heading(name: str, summary: str, usage: str, examples: Examples) -> list[str]:
    width = max((len(typed) for typed, _ in examples), default=0)
    shown = [f"  {typed:<{width}}  # {what}" for typed, what in examples]
    return [f"mlscale {name}: {summary}", "", usage, *(["", "examples:", *shown] if shown else ())]


def _align_rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = min(max(len(head) for head, _ in rows), _WIDEST)
    return [f"  {head:<{width}}  # {text}" for head, text in rows]


def _format_settings(command: str) -> list[str]:
    """Return the command's own keys with their defaults and meaning, from the comments of its YAML files."""
    shipped = get_shipped_folder("conf") / COMMAND_GROUP
    files = [shipped / f"{command}.yaml"]
    if COMMANDS[command].module:
        # A third-party command has its keys in a config group of its own name.
        files = [shipped / f"{TAKES_MODEL}.yaml"] if COMMANDS[command].takes_model else []
        files += [file for option, file in find_roots().files.get(command, {}).items() if option == "default"]
    rows = [row for file in files for row in _read_settings(file)]
    width = min(max((len(setting) for setting, _ in rows), default=0), _WIDEST)
    return [f"{setting:<{width}}  # {text}".rstrip("# ") if text else setting for setting, text in rows]


def _read_settings(file: Path) -> list[tuple[str, str]]:
    """Return each key of a file as it is typed, with its comment."""
    text = file.read_text(encoding="utf-8")
    package = re.match(r"# @package (?!_global_)(\S+)", text)
    heads = [package[1]] if package else []
    top, rows = len(heads), list[tuple[str, str]]()
    for line in text.splitlines():
        match = _KEY.match(line)
        if match is None:
            continue
        # Parsed by lines, not by a YAML library, which would drop the comments. The shipped files are indented by two.
        level = top + len(match["indent"]) // 2
        heads = [*heads[:level], match["key"]]
        if match["value"]:
            value = match["value"].replace(", ", ",") if match["value"] != "???" else "<value>"
            rows.append((f"{'.'.join(heads)}={value}", match["text"]))
    return rows


def create_unknown_command_error(word: str, *following: str) -> MLScaleError:
    """Return the error for a first word that is neither a command nor an override.

    Args:
        following: the words after it: `mlscale debug fast` means debug=fast.
    """
    from mlscale.config.names.foreign_names import find_meanings, is_sentence

    groups = find_roots().groups
    if word in groups:
        # `mlscale debug fast` instead of `debug=fast`: the next word may be the option.
        option = following[0] if following[:1] and following[0] in groups[word] else f"<{'|'.join(groups[word])}>"
        recipe = "" if word == "recipe" else "+recipe=<recipe> "
        return MLScaleError(
            f"'{word}' is a setting, not a command", where="command line", fix=f"mlscale {recipe}{word}={option}"
        )
    # One of a package that does not load is reported by `--help`.
    register_commands(COMMANDS)
    best = next((item.removeprefix("mlscale ") for item in find_meanings(f"mlscale {word}")), None)
    missing = next(filter(is_sentence, find_meanings(word)), "")
    best = best or (None if missing else find_nearest(word, COMMANDS))
    if word in groups.get("recipe", ()) and all("=" in item for item in following):
        best = f"recipe={word}"
    return MLScaleError(
        f"unknown command '{word}'",
        where="command line",
        why=missing or f"commands: {', '.join(COMMANDS)}",
        fix=_join_command(best.split(), following) if best else "mlscale --help",
    )


def _join_command(meant: list[str], following: Sequence[str]) -> str:
    """Return the command that was meant, with the words that were typed after it in place of its example."""
    if meant[-1] == "last" and following and "=" not in following[0]:
        meant = meant[:-1]
    words = [word.lstrip("-") if "=" in word else word for word in following]  # `fit --trainer.max_epochs=1`
    return shlex.join(["mlscale", *meant, *words])
