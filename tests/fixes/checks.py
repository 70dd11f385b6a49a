"""Check what a fix says to type: commands, options, keys, values, extras and files, and what a shell makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mlscale.commands import COMMANDS
from mlscale.commands.options import read_options
from mlscale.config.composition.argv import build_request, parse_command_line
from mlscale.config.schema.model_arguments import REFERENCES
from mlscale.config.schema.roots import BASE_GROUPS
from mlscale.errors import MLScaleError
from tests.fixes.grammar import PLACE, Line, find_mentions, parse_fix
from tests.fixes.known_words import (
    find_absent_names,
    find_absent_pages,
    get_known_words,
    is_expression,
    list_extras,
)

_OTHERS = "…"  # stands for the other words of a command
_SHELL = re.compile(r"[$&;|<>()#*?`{}!\\]")
_PIPES = frozenset({"&&", "|", ">", ";"})


def check_fix(fix: str) -> list[str]:
    """Return what is wrong with a fix, each with the line; nothing for prose, which is counted elsewhere."""
    problems = [f"{problem}   in: {line.typed}" for line in parse_fix(fix) for problem in check_line(line)]
    problems += [f"{page} does not exist" for page in find_absent_pages(fix)]
    return problems + [f"{name} does not exist" for name in find_absent_names(fix)]


def check_line(line: Line) -> Iterator[str]:
    """Yield what is wrong with one line."""
    if line.kind == "overrides":
        yield from _check_shell(line.typed)
        yield from _check_overrides(line.words, None)
    elif line.kind == "command":
        yield from _check_command(line)
    elif line.kind == "choice":
        yield from _check_choice(line.typed)
    elif line.kind == "yaml":
        yield from _check_yaml(line.typed)
    elif line.kind == "python" and not is_expression(line.typed):
        yield "not an expression of Python"
    for mention in find_mentions(line.reason):
        key = mention.partition("=")[0]
        if not get_known_words().has_key(key) and key not in get_known_words().roots.groups:
            yield f"unknown key '{key}' in the reason"


def _check_choice(text: str) -> Iterator[str]:
    """Yield what does not exist of `optimizer is one of sgd, adamw` or `data.val is a key of data=webdataset`."""
    name, _, rest = text.partition(" is ")
    options = rest.removeprefix("one of ").removeprefix("a key of ").split(", ")
    words = options if rest.startswith("a key of ") else [f"{name}={option}" for option in options]
    yield from _check_overrides(words, None)


def _check_yaml(text: str) -> Iterator[str]:
    try:
        if not isinstance(yaml.safe_load(text), dict):
            yield "not a line of YAML"
    except yaml.YAMLError:
        yield "not a line of YAML"


def _check_shell(typed: str) -> Iterator[str]:
    """Yield the characters that a shell would expand, or end a word at."""
    unquoted = re.sub(r"'[^']*'|\"(?:\\.|[^\"\\])*\"", "", typed)
    # A job's own number is meant to be expanded.
    if found := _SHELL.search(re.sub(r"\$SLURM_\w+", "", unquoted)):
        yield f"a shell expands {found[0]!r}"


def _check_overrides(words: Sequence[str], command: str | None) -> Iterator[str]:
    several = "-m" in words
    for word in words:
        word = word.partition(",")[0] if several else word  # of a sweep, its first value
        if word not in (PLACE, _OTHERS) and not word.startswith("-") and word != "job":
            yield from _check_override(word, command)


def _check_override(word: str, command: str | None) -> Iterator[str]:
    known = get_known_words()
    key, sign, text = word.lstrip("+~").partition("=")
    key = key.partition("@")[0]
    if key in known.roots.groups or key in BASE_GROUPS:
        if sign:
            yield from _check_options(key, text)
        return
    if not known.has_key(key) or (command and known.is_of_others(key, command)):
        yield f"unknown key '{key}'" + (f" of {command}" if command else "")
    elif sign and PLACE not in text and _OTHERS not in text and "${" not in text:
        try:
            # As the command line reads it: paths and patterns hold more than Hydra's grammar takes, and are quoted.
            (override,) = build_request(command or "train", [f"{key}={text}"], known.roots).overrides
            value = OverridesParser.create().parse_override(override).value()
        except (HydraException, MLScaleError) as error:
            yield f"{word!r} can't be read: {error}"
            return
        if not known.takes(key, _to_plain(value)):
            yield f"'{key}' does not take {text!r}"


def _check_options(group: str, text: str) -> Iterator[str]:
    options = get_known_words().list_options(group)
    for option in re.split(r"[\[\],\s]+", text):
        if option and PLACE not in option and _OTHERS not in option and option not in (*options, "none"):
            yield f"{group} has no option '{option}'"


def _to_plain(value: object) -> object:
    """Return a parsed value as YAML would give it."""
    if isinstance(value, list):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        return {_to_plain(key): _to_plain(item) for key, item in value.items()}
    return value.text if hasattr(value, "text") and not isinstance(value, str) else value


def _check_command(line: Line) -> Iterator[str]:
    words = [word for word in line.words if word != _OTHERS]
    if words[0] == "pip":
        for extras in re.findall(r"mlscale\[([^\]]*)\]", line.typed):
            unknown = [name for name in extras.split(",") if PLACE not in name and name not in list_extras()]
            yield from (f"no extra '{name}'" for name in unknown)
        if "[" in re.sub(r"'[^']*'", "", line.typed):
            yield "a shell may expand '['"
        return
    while "=" in words[0]:  # variables in front
        words = words[1:]
    if words[:3] == ["python", "-m", "mlscale"]:
        words = ["mlscale", *words[3:]]
    if words[0] != "mlscale" or _PIPES & set(words):
        return
    yield from _check_shell(line.typed)
    yield from check_words(words[1:])


def check_words(words: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the words after `mlscale`."""
    if words[:1] == ["-m"]:
        words = ["train", *words]
    if not words or words[0].startswith(("-", PLACE)):
        return
    command, rest = (words[0], list(words[1:])) if words[0] in COMMANDS else ("train", list(words))
    if rest[:1] == ["--help"]:
        return
    try:
        if not COMMANDS[command].has_config:
            if not rest or PLACE not in rest[0]:
                read_options(command, COMMANDS[command].actions, rest)
            return
        # A place to fill in may be several words: only the first is a reference.
        known = [word for index, word in enumerate(rest) if word != PLACE or (index == 0 and command in REFERENCES)]
        request = parse_command_line(command, known)
    except MLScaleError as error:
        yield f"refused: {error.what} (fix: {error.fix})"
        return
    typed = [word for word in request.typed if not word.lstrip("+").startswith("ref=")]
    yield from _check_overrides([*["-m"] * request.multirun, *typed], command)
