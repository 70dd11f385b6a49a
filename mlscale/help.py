"""The help texts. They teach by example, and import neither Hydra nor torch."""

from __future__ import annotations

import re
import sys

from mlscale.commands import COMMANDS
from mlscale.commands.third_party import register_commands
from mlscale.config.composition.reference_argument import REFERENCES
from mlscale.config.composition.roots import BASE_GROUPS, VERB_CONFIGS, VERB_GROUP, Roots, find_roots, shipped_folder
from mlscale.config.suggestions.suggest import nearest
from mlscale.errors import MLScaleError

_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?: +(?P<value>[^#\s][^#]*?))?(?: *# ?(?P<text>.*))?$")
_WIDEST = 34  # characters of a setting beside which its meaning is aligned
_FLAGS = (
    ("-m, --multirun", "run one job for each combination of a=1,2 b=x,y"),
    ("--config-dir DIR", "a folder of your own groups and recipes; may be given several times"),
    ("--cfg job [--resolve]", "print the composed config and stop"),
    ("--info [searchpath]", "how Hydra came to the config: search path, defaults tree, plugins"),
    ("--hydra-help", "Hydra's own help"),
)


def version() -> str:
    """`mlscale 0.1.0`."""
    from importlib.metadata import version as installed  # 20 ms, which `--help` and a typo need not wait for

    return f"mlscale {installed('mlscale')}"


def overview() -> str:
    """`mlscale --help`; a third-party command that can't be offered is reported on stderr."""
    for warning in register_commands(COMMANDS):
        print(f"warning   {warning}", file=sys.stderr)
    third_party = {name: command for name, command in COMMANDS.items() if command.module}
    lines = [
        "mlscale: one YAML recipe, from proof of concept to production",
        "",
        "usage: mlscale [verb] [key=value …]      (also: python -m mlscale …)",
        "",
        "first:",
        "  mlscale +recipe=resnet                 train a small ResNet on handwritten digits, a minute on a laptop",
        "  mlscale env                            what will and won't work on this machine",
        "",
        "verbs:",
        *(f"  {name:<14} {verb.summary}" for name, verb in COMMANDS.items() if not verb.module),
        *(["", "from installed packages:"] if third_party else ()),
        *(f"  {name:<14} {command.summary}" for name, command in third_party.items()),
        "",
        "mlscale VERB --help shows what a verb takes, with examples.",
        "mlscale completion bash|zsh|fish prints a script that completes verbs, groups and keys.",
    ]
    return "\n".join(lines)


def of_verb(verb: str, roots: Roots) -> str:
    """`mlscale VERB --help` for a working verb: examples, the groups and their options, the flags."""
    entry = COMMANDS[verb]
    width = max((len(command) for command, _ in entry.examples), default=0)
    lines = [f"mlscale {verb}: {entry.summary}", "", _usage(verb)]
    if entry.examples:
        lines += ["", "examples:", *(f"  {command:<{width}}  # {what}" for command, what in entry.examples)]
    if settings := _settings(verb):
        lines += ["", "settings:", *("  " + line for line in settings)]
    lines += ["", "recipes and groups (mlscale config show +recipe=NAME prints every key):"]
    groups = roots.groups_of(verb)
    order = ["recipe", *BASE_GROUPS, *(name for name in groups if name not in ("recipe", "base", *BASE_GROUPS))]
    lines += [f"  {group:<10} {', '.join(groups[group])}" for group in order if group in groups]
    lines += ["", "flags:", *(f"  {flag:<22} {what}" for flag, what in _FLAGS)]
    return "\n".join(lines)


def _usage(verb: str) -> str:
    of_a_run = "[recipe=NAME] [group=option …] " if VERB_CONFIGS[verb] == "run" else ""
    first = f"{REFERENCES[verb].usage} " if verb in REFERENCES else ""
    return f"usage: mlscale {'[train]' if verb == 'train' else verb} {first}{of_a_run}[key=value …] [flags]"


def _settings(verb: str) -> list[str]:
    """The verb's own keys with their defaults and meaning: the file says it best."""
    file = find_roots().files.get(verb, {}).get("default") if COMMANDS[verb].module else None
    file = file or shipped_folder("conf") / VERB_GROUP / f"{verb}.yaml"
    if not file.is_file():  # a third-party command without keys of its own
        return []
    text = file.read_text(encoding="utf-8")
    package = re.match(r"# @package (?!_global_)(\S+)", text)
    heads = [package[1]] if package else []
    top, rows = len(heads), []
    for line in text.splitlines():
        match = _KEY.match(line)
        if match is None:
            continue
        level = top + len(match["indent"]) // 2
        heads = [*heads[:level], match["key"]]
        if match["value"]:
            value = match["value"].replace(", ", ",") if match["value"] != "???" else "<value>"
            rows.append((f"{'.'.join(heads)}={value}", match["text"]))
    width = min(max((len(setting) for setting, _ in rows), default=0), _WIDEST)
    return [f"{setting:<{width}}  # {text}".rstrip("# ") if text else setting for setting, text in rows]


def unknown_verb(word: str, following: str = "") -> MLScaleError:
    """The error for a first word that is neither a verb nor an override.

    Args:
        following: the word after it: `mlscale debug fast` means debug=fast.
    """
    from mlscale.config.suggestions import not_yet
    from mlscale.config.suggestions.foreign_names import table

    groups = find_roots().groups
    if word in groups:
        option = following if following in groups[word] else f"<{'|'.join(groups[word])}>"
        recipe = "" if word == "recipe" else "+recipe=… "
        return MLScaleError(
            f"'{word}' is a setting, not a verb", where="command line", fix=f"mlscale {recipe}{word}={option}"
        )
    if feature := not_yet.of_key(word):
        return feature.error(f"mlscale {word}", "command line")
    best = table().commands.get(word) or nearest(word, COMMANDS)
    if word in groups.get("recipe", ()):
        best = f"recipe={word}"
    return MLScaleError(
        f"unknown verb '{word}'",
        where="command line",
        why=f"verbs: {', '.join(COMMANDS)}",
        fix=f"mlscale {best}" if best else "mlscale --help",
    )
