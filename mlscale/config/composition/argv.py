"""From the typed words to overrides that Hydra reads.

`recipe=x` and `+recipe=x` mean the same; `recipe`, `tuned`, `debug` and `sweep` come in this order, so the later wins;
a plain `key=value` becomes `++key=value`, so that every unknown key meets one checker; values that Hydra's grammar
can't read (braces, `?`, `&`, `#` in a path) are quoted; a first word that names a model becomes `ref=…`.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlscale.config.composition.hydra_keys import SEARCHED, check_effect
from mlscale.config.composition.reference_argument import (
    add_reference_key,
    check_replaced_keys,
    check_single_reference,
    is_reference,
)
from mlscale.config.composition.request import APPENDED, Request
from mlscale.config.names.suggest import quote_hydra_text
from mlscale.config.schema.model_arguments import REF, REFERENCES
from mlscale.config.schema.roots import BASE_GROUPS, Roots, find_roots
from mlscale.errors import MLScaleError, raise_all

if TYPE_CHECKING:
    from omegaconf import DictConfig

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_SPACED = re.compile(r"\+?(\w+(?:[.@/]\w+)+|(?<=\+)\w+|\w+(?= ?[=:])) ?[=: ] ?([^\s=:]+)")
_OVERRIDE = re.compile(r"^(?P<sign>\+\+|\+|~)?(?P<key>[^=\s]+?)(?:=(?P<value>.*))?$", re.DOTALL)
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def parse_command_line(command: str, argv: Sequence[str]) -> Request:
    """Split flags from overrides and put the overrides into Hydra's form.

    Raises:
        MLScaleError: for words that are neither, all of them at once.
    """
    known, words = parse_flags(argv)
    raise_all(list(_check_flags(known)))
    roots = find_roots(known.config_dir)
    effects = (problem for word in words for problem in check_effect(word, multirun=known.multirun))
    raise_all([*_check_words(command, words, roots), *effects])
    raise_all(list(check_single_reference(command, words)))
    words = add_reference_key(command, words)
    raise_all(list(check_replaced_keys(command, words)))
    overrides = _normalise_overrides(command, words, roots, multirun=known.multirun)
    return Request(
        command=command,
        typed=tuple(words),
        overrides=tuple(overrides),
        roots=roots,
        flags=tuple(_collect_hydra_flags(known)),
        multirun=known.multirun,
        help=known.help,
        values=_collect_values(words),
    )


def build_request(command: str, words: Sequence[str], roots: Roots) -> Request:
    """Return the request for overrides alone, without flags.

    Raises:
        MLScaleError: one of them can't be read.
    """
    overrides = _normalise_overrides(command, words, roots, multirun=False)
    return Request(command, tuple(words), tuple(overrides), roots)


def check_overrides(
    command: str, words: Sequence[str], roots: Roots
) -> tuple[Request, DictConfig | None, Sequence[MLScaleError]]:
    """Return the request for overrides alone, its config, None if it can't be composed, and the problems of both."""
    from mlscale.config.checks.check import check_config  # only where something is wrong
    from mlscale.config.composition.compose import compose_config

    request, cfg = Request(command, (), (), roots), None
    try:
        request = build_request(command, words, roots)
        cfg = compose_config(request)
    except MLScaleError as error:
        return request, cfg, list(error.list_problems())
    groups, files = roots.get_command_groups(command), roots.list_command_files(command)
    return request, cfg, check_config(cfg, groups=groups, command=command, command_files=files)


def parse_flags(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags, and the other words."""
    # No abbreviations: `--mult` would be accepted now, and break as soon as Hydra has a second flag with that start.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--run", "-r", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=_INFO)
    words = list(argv)
    # argparse would take the word after a bare `--info` as its value: `--info recipe=x` means all of it. Backwards,
    # because words are inserted.
    for index in range(len(words) - 1, -1, -1):
        if words[index] in ("--info", "-i") and words[index + 1 : index + 2] and words[index + 1] not in _INFO:
            words.insert(index + 1, "all")
    try:
        return parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise MLScaleError(
            str(error), where="command line", fix="mlscale train --help, for the flags: settings are typed as key=value"
        ) from None


def _check_flags(known: argparse.Namespace) -> Iterator[MLScaleError]:
    """Yield an error for flags that exclude each other, or need another one."""
    modes = [name for name in ("multirun", "run", "cfg", "info", "hydra_help") if getattr(known, name)]
    flags = [f"--{name.replace('_', '-')}" for name in modes]
    if len(flags) > 1:
        what = f"{' and '.join(flags)} exclude each other"
        yield MLScaleError(what, where="command line", fix=f"leave {' or '.join(flags)} out")
    for flag in ("config_path", "config_name"):
        if getattr(known, flag) is not None:
            why = "a command has its own primary config; --config-dir adds a folder, recipe= selects in it"
            yield MLScaleError(f"--{flag.replace('_', '-')} has no effect", where="command line", why=why)
    for name in ("resolve", "package"):
        if getattr(known, name) and not known.cfg:
            value = f" {known.package}" if name == "package" else ""
            yield MLScaleError(f"--{name} belongs to --cfg", where="command line", fix=f"--cfg job --{name}{value}")


def _collect_hydra_flags(known: argparse.Namespace) -> list[str]:
    flags = [f"--{name.replace('_', '-')}" for name in ("hydra_help", "resolve", "run") if getattr(known, name)]
    for name in ("cfg", "package", "info"):
        if getattr(known, name) is not None:
            flags += [f"--{name}", getattr(known, name)]
    return flags


def _check_words(command: str, words: Sequence[str], roots: Roots) -> Iterator[MLScaleError]:
    """Yield an error for each word that is not a `key=value`, with what a flag means: `--gpus 2`."""
    rest, reference = list(words), words[0] if words and is_reference(command, words) else None
    while rest:
        is_first, word, why, fix = len(rest) == len(words), rest.pop(0), "settings are typed as key=value", ""
        if word.startswith("-"):
            key, sign, value = word.lstrip("-").partition("=")
            key = key.replace("-", "_")
            # A negative number is a value, not a flag: `--gpus -1`.
            if not sign and rest and (_is_bare_word(rest[0]) or _NUMBER.fullmatch(rest[0])):
                value = rest.pop(0)
            what = f"unknown flag '{word}'"
            fix, reason = _suggest_setting(command, key, value, words, roots)
            why = "; ".join(filter(None, (why, reason)))
        elif is_first and word == reference:
            continue
        elif _is_bare_word(word) or not _OVERRIDE.match(word):
            while rest and _is_bare_word(rest[0]):  # `optimizer.lr = 0.1`
                word += f" {rest.pop(0)}"
            what = f"unknown word '{word}'"
            if command == "predict" and reference is not None and "=" not in word:
                fix = shlex.quote(f"input={word}")
            elif command in REFERENCES and "=" not in word:
                named = word if reference is None else reference
                fix = shlex.join(["mlscale", command, named, *_list_settings(words, reference)])
            elif parts := _SPACED.fullmatch(word):  # `optimizer.lr = 0.1`, `optimizer.lr:0.1`, `+recipe resnet`
                fix = f"{parts[1]}={parts[2]}"
            elif word in roots.groups.get("recipe", ()):
                fix = f"recipe={word}"
        elif (group := word.lstrip("+~").partition("=")[0]) in roots.groups and group not in roots.get_command_groups(
            command
        ):
            what, fix = f"`mlscale {command}` takes no {group}", f"leave {word} out; mlscale {command} --help"
        else:
            continue
        yield MLScaleError(what, where="command line", why=why, fix=fix)


def _suggest_setting(command: str, key: str, value: str, words: Sequence[str], roots: Roots) -> tuple[str, str]:
    """Return the override that a flag means, and why: as the check answers it where it is typed as a setting."""
    from mlscale.config.composition.fixes_in_force import drop_fixes_in_force

    setting = f"{key}={value or 'true'}"
    if not key or not _OVERRIDE.match(setting):
        return "", ""
    selected = [word for word in words if word.lstrip("+").partition("=")[0] in roots.groups and "=" in word]
    request, cfg, problems = check_overrides(command, [*selected, setting], roots)
    if cfg is None and not any(key in problem.what for problem in problems):
        # What is selected is wrong itself, and is reported next.
        return _suggest_setting(command, key, value, (), roots) if selected else ("", "")
    meant = next((problem for problem in problems if key in problem.what), MLScaleError("", fix=setting))
    drop_fixes_in_force([meant], request, cfg)
    return meant.fix, meant.why


def _is_bare_word(word: str) -> bool:
    return "=" not in word.lstrip("=") and not word.startswith(("~", "-"))


def _list_settings(words: Sequence[str], reference: str | None) -> list[str]:
    """Return the words without those that name a model, or nothing that is known: what is left can be typed again."""
    others = [word for word in words if word != reference and not _is_bare_word(word)]
    return [word for word in others if not word.lstrip("+").startswith(f"{REF}=")]


def _normalise_overrides(command: str, words: Sequence[str], roots: Roots, *, multirun: bool) -> list[str]:
    plain: list[str] = []
    appended: dict[str, list[str]] = {name: [] for name in APPENDED}
    problems: list[MLScaleError] = []
    for word in words:
        match = _OVERRIDE.match(word)
        assert match is not None
        sign, key, value = match["sign"] or "", match["key"], match["value"]
        group = key.split("@", 1)[0]
        if group in APPENDED and sign != "~":
            appended[group].append(f"+{key}={value}")
        elif group in BASE_GROUPS and not (value or "").startswith("{"):
            # A group of conf/base has a default, so Hydra wants it without a sign.
            plain.append(word.lstrip("+"))
        elif group in roots.groups and sign != "~":
            # A group without a default must be appended.
            plain.append("+" + word.lstrip("+"))
        elif key.startswith("hydra") or sign == "~":
            plain.append(word)
        else:
            try:
                plain.append(f"++{key}={_quote_if_needed(key, value or '', multirun=multirun)}")
            except MLScaleError as problem:
                problems.append(problem)
    ordered = [*plain, *(word for name in APPENDED for word in appended[name])]
    raise_all([*problems, *(_check_readable(ordered) if ordered else ())])  # help imports no Hydra
    return ordered


def _check_readable(words: Sequence[str]) -> Iterator[MLScaleError]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for word in words:
        why = ""
        key, sign, value = word.lstrip("+").partition("=")
        try:
            OverridesParser.create().parse_override(word)
        except HydraException as error:
            item = re.fullmatch(r"([\w.]+)\[(\w+)\]", key)
            own = f"{item[1]}.{item[2]}=… sets one item, {item[1]}=[…] the whole list" if item else ""
            why = own or str(error).partition("\n")[0]
        if "${" in word:
            from mlscale.config.checks.interpolations import INTERPOLATION, can_interpolate

            why = why or ("" if can_interpolate(value) else INTERPOLATION)
        if why:
            shown = f"{key}{sign}" + value.strip("'")  # quoted as what Hydra can't read
            yield MLScaleError(f"'{shown}' can't be read", where="command line", why=why)


def _quote_if_needed(key: str, value: str, *, multirun: bool) -> str:
    """Return the value, quoted where Hydra's grammar can't read it, would read a sweep into a path, or a number into an
    id.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException:
        # What Hydra can't parse is taken as a text; `_check_readable` then reports what no quoting makes readable.
        return quote_hydra_text(value)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in thousands of brackets
        shown = f"{key}={value[:40]}…"
        why = str(error).partition(";")[0] or "it is nested too deeply"
        raise MLScaleError(f"{shown} can't be read", where="command line", why=why) from None
    if parsed.is_sweep_override() and not multirun:
        # A path may contain commas, which Hydra reads as a sweep.
        if "/" in value:
            return quote_hydra_text(value)
        why = "one job runs for each with -m"
        raise MLScaleError(
            f"{key}={value} is a sweep over several values",
            where=f"command line: {key}={value}",
            why=SEARCHED if value.startswith("interval(") else why,
            fix=_suggest_sweep(key, value, list(getattr(parsed.value(), "list", ()))),
        )
    # A run's id may look like a number (`1e5`): unquoted, Hydra would change its digits.
    is_text = multirun or isinstance(parsed.value(), str | type(None))
    return value if key != REF or is_text else quote_hydra_text(value)


def _suggest_sweep(key: str, value: str, values: Sequence[object]) -> str:
    """Return the words for a sweep over values, or a list of them, that a documented key takes; "" for none."""
    from mlscale.config.schema.documented_fields import get_shipped_fields

    options = get_shipped_fields().options
    kinds = [field.type for item in options for field in item.fields if field.path == key and field.type]
    is_sweep = any(values and all(map(kind.accepts, values)) for kind in kinds)
    lines = [f"-m {shlex.quote(f'{key}={value}')}, which runs one job for each"] if is_sweep else []
    is_list = "(" not in value and any(values and kind.accepts(values) for kind in kinds)
    lines += [f"{key}=[{value}], for a list"] if is_list else []
    return "\n".join(lines)


def replace_reference(request: Request, ref: str) -> Request:
    """Return the request with another reference in place of the one that was typed."""
    overrides = [word for word in request.overrides if not word.startswith(f"++{REF}=")]
    values = {**request.values, REF: ref}
    return replace(request, overrides=(*overrides, f"++{REF}={quote_hydra_text(ref)}"), values=values)


def _collect_values(words: Sequence[str]) -> dict[str, str]:
    pairs = (word.lstrip("+").split("=", 1) for word in words if "=" in word and not word.startswith("~"))
    return {pair[0]: pair[1] for pair in pairs}
