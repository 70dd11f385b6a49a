"""Overrides that a fix sets, and those of them that would change nothing: the configuration has them already."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlscale.config.composition.option_files import find_selecting_option
from mlscale.config.composition.request import APPENDED, Request
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_WORD = re.compile(r"(?:'[^']*'|\"(?:\\.|[^\"\\])*\"|[^\s'\"])+")
OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*=.+|~[A-Za-z_][\w./@-]*", re.DOTALL)
_OWN = "is what this run has"


def drop_fixes_in_force(problems: Sequence[MLScaleError], request: Request, cfg: DictConfig | None) -> None:
    """Take the lines of overrides that the configuration has out of the fixes of its problems.

    Args:
        cfg: None where it can't be composed: then options alone are compared.
    """
    for problem in problems:
        lines = problem.fix.split("\n")
        for line in lines:
            words = read_words(line)
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


def read_words(line: str) -> list[str]:
    """Return the overrides that a line of a fix begins with; nothing of another line, such as a sweep, of one with a
    place to fill in, and of Hydra's own settings.
    """
    words: list[str] = []
    for token in _WORD.findall(line) if "<" not in line else ():
        word = shlex.split(token)[0].rstrip(",;:")
        if not OVERRIDE.fullmatch(word) or "hydra" in word:
            return []
        words.append(word)
        if token.endswith((",", ";", ":")):
            break
    return words
