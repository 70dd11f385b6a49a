"""The fixes that an error of the configuration offers: never what was typed, nor the value in force.

What shows something instead of doing it is a reason; without anything to type the error names the page.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from mlscale.config.composition.option_files import find_selecting_option
from mlscale.config.composition.request import APPENDED, Request
from mlscale.config.schema.model_arguments import REFERENCES
from mlscale.config.schema.roots import find_roots
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PAGE, _NAMES_PAGE = "docs/configuration.md", "docs/names.md"
_WORD = re.compile(r"(?:'[^']*'|\"(?:\\.|[^\"\\])*\"|[^\s'\"])+")
_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*=.+|~[A-Za-z_][\w./@-]*", re.DOTALL)
# `optimizer is one of sgd, adamw` is not typed.
_TYPED = re.compile(
    r"((leave|write|take|mlscale|pip|python|export|mkdir|mv|choose|sbatch|cd) ?|--?\w|[\[`]|[\w.@~+/-]+[=(])"
)
_SHOWN = re.compile(r"mlscale .*(--help|config show|runs ls)|mlscale \+recipe")
_OWN = "is what this run has"
_IS_NAME = re.compile(r"unknown (key|flag|word) ")  # of these the page has the names of other programs


@contextlib.contextmanager
def offer_fixes(typed: Sequence[str], command: str) -> Iterator[None]:
    """Leave each error that is raised inside those lines of its fix that are to be typed, were not, and pass the check.

    Args:
        typed: the words after the command.
    """
    try:
        yield
    except MLScaleError as error:
        _check_words.cache_clear()  # files may have changed since
        words_before = {word.lstrip("+") for word in typed}
        fixes = [problem.fix.partition("\n")[0] for problem in error.list_problems()]
        wrong = {problem.where.removeprefix("command line: ") for problem in error.list_problems()}
        rest = [*(word for word in typed if word not in wrong), *(word for fix in fixes for word in _read_words(fix))]
        for problem in error.list_problems() if error.exit == Exit.USER else ():
            lines, reasons = [], [problem.why]
            for line in filter(None, problem.fix.split("\n")):
                objection = _find_objection(line, rest, command)
                if objection is not None and objection.fix:  # `metrics=accuracy` is metric=val/accuracy
                    line = objection.fix.partition("\n")[0]
                    objection = _find_objection(line, rest, command)
                words = {word.lstrip("+") for word in _read_words(line)}
                if not words and "<" not in line and (not _TYPED.match(line) or _SHOWN.match(line)):
                    reasons.append(line)
                elif objection is not None:
                    reasons.append(f"{objection.what}, {objection.why}".removesuffix(", "))
                elif not words or not words <= words_before:
                    lines.append(line)
            if not lines:
                reasons.append(f"see {_NAMES_PAGE if _IS_NAME.match(problem.what) else _PAGE}")
            problem.fix, problem.why = "\n".join(lines), "; ".join(filter(None, reasons))
        raise


def _find_objection(line: str, rest: Sequence[str], command: str) -> MLScaleError | None:
    """Return why what a line sets is refused itself, with the other words that are to be typed; None if it is not."""
    sweep = line.removeprefix("-m ")
    words = [word if sweep == line else word.partition(",")[0] for word in _read_words(sweep)]
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    if not words or command in REFERENCES:  # the config of a run is not read again
        return None
    if not set(words) <= set(rest):  # else all are checked at once
        rest = [*(word for word in rest if word.lstrip("+~").partition("=")[0] not in keys), *words]
    named = "|".join(rf"(?<![\w.]){re.escape(key)}(?![\w.])" for key in keys)
    problems = _check_words(tuple(rest), command)
    return next((problem for problem in problems if re.search(named, f"{problem.what} {problem.where}")), None)


@lru_cache(maxsize=1)
def _check_words(words: Sequence[str], command: str) -> Sequence[MLScaleError]:
    from mlscale.config.composition.argv import check_overrides, parse_flags

    known, typed = parse_flags(words)
    overrides = [word for word in typed if _OVERRIDE.fullmatch(word)]
    return check_overrides(command, overrides, find_roots(known.config_dir))[2]


def drop_fixes_in_force(problems: Sequence[MLScaleError], request: Request, cfg: DictConfig | None) -> None:
    """Take the lines of overrides that the configuration has out of the fixes of its problems.

    Args:
        cfg: None where it can't be composed: then options alone are compared.
    """
    for problem in problems:
        lines = problem.fix.split("\n")
        for line in lines:
            words = _read_words(line)
            objections = [_object_to(word, request, cfg) for word in words]
            if words and all(objections):
                problem.why = "; ".join(filter(None, (problem.why, f"{' '.join(words)} {objections[0]}")))
                lines = [other for other in lines if other != line]
        problem.fix = "\n".join(lines)


def _object_to(word: str, request: Request, cfg: DictConfig | None) -> str:
    """Return why a word fixes nothing: the run has what it sets, or has several in place of one; "" for nothing.

    Values are compared as they are written: a derived one that is equal by chance is another setting.
    """
    key, _, text = word.lstrip("+").partition("=")
    others = tuple(other for other in request.overrides if other.lstrip("+").partition("=")[0] != key)
    if key in request.roots.groups:
        selected = find_selecting_option(key, others, request.roots, own=False)[1]
        return _OWN if key not in APPENDED and text == selected and "base=frozen" not in others else ""
    if cfg is None or word.startswith("~"):
        return ""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    if others != request.overrides:  # the key was typed: what it is without that
        from mlscale.config.composition.compose import compose_config

        try:
            cfg = compose_config(replace(request, overrides=others))
        except MLScaleError:
            return ""
    new, old = OverridesParser.create().parse_override(word).value(), OmegaConf.to_container(cfg, resolve=False)
    for part in key.split("."):
        old = old.get(part) if isinstance(old, dict) else None
    if isinstance(new, list) and isinstance(old, list) and len(new) == 1 < len(old) and "=[" not in str(request.typed):
        return f"leaves {len(old) - 1} of the list out"
    return _OWN if new == old else ""


def _read_words(line: str) -> list[str]:
    """Return the overrides that a line of a fix begins with; nothing of another line, such as a sweep, of one with a
    place to fill in, and of Hydra's own settings.
    """
    words: list[str] = []
    for token in _WORD.findall(line) if "<" not in line else ():
        word = shlex.split(token)[0].rstrip(",;:")
        if not _OVERRIDE.fullmatch(word) or "hydra" in word:
            return []
        words.append(word)
        if token.endswith((",", ";", ":")):
            break
    return words
