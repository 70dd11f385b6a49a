"""The one rule for what an error of the configuration says to type: it is tried before it is printed.

A fix is never what was typed nor the value in force; it passes the check, and keeps what was typed: one number in place
of a list of several, or a place to fill in for a value that was typed, is none. Without a fix the error names the page.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from mlscale.config.names.name_distance import fold_name
from mlscale.config.names.suggest import find_nearest
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.config.composition.request import Request

PAGE = "docs/configuration.md"
_WORD = re.compile(r"(?:'[^']*'|\"(?:\\.|[^\"\\])*\"|[^\s'\"])+")
_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*=.+|~[A-Za-z_][\w./@-]*", re.DOTALL)
_SWEPT = re.compile(r"=[^\[{'\"(]*,")  # of a sweep, up to its last value
_NAME = re.compile(r"[A-Za-z]\w+")
_SWAPS = re.compile(r"(model|optimizer|task)(\._target_)?=")
# What is not typed, or shows something instead of doing it, is a reason: `optimizer is one of sgd, adamw`.
_TYPED = re.compile(
    r"(?!.*(?:--help|config show))"
    r"((leave|write|take|mlscale|pip|python|export|mkdir|mv|choose|sbatch|cd) ?|--?\w|[\[`]|[\w.@~+/-]+[=(])"
)
# Of these a place to fill in keeps nothing of what was typed; where a key is missing, it is all that can be said.
_OF_A_VALUE = re.compile(r"unknown |'.*' must be |'.*' is not set here|.* can't be read|.* does not name an option")


@contextlib.contextmanager
def confirm_fixes(command: str, argv: Sequence[str]) -> Iterator[None]:
    """Try the fixes of the errors that are raised inside, and take those out that are none.

    Args:
        argv: the words that were typed after the command.
    """
    try:
        yield
    except MLScaleError as error:
        if error.exit == Exit.USER:
            # What is printed on the way was printed at the first look.
            with contextlib.redirect_stderr(io.StringIO()):
                _confirm(command, list(argv), error.list_problems())
        raise


def _confirm(command: str, argv: list[str], problems: Sequence[MLScaleError]) -> None:
    """Leave each problem those lines of its fix that pass."""
    first = [_read_words(problem.fix.partition("\n")[0]) for problem in problems if "<" not in problem.fix]
    trial = None
    if any(first):
        with contextlib.suppress(MLScaleError):  # what is wrong is not among the words: nothing can be tried
            trial = _Trial(command, argv, problems)
    # Together first: one may need another, and most errors have fixes that pass.
    together = tuple(chain(*first))
    passes = trial is not None and trial.passes(together)
    for problem in problems:
        lines, reason = [], ""
        for line in filter(None, problem.fix.split("\n")):
            words = _read_words(line)
            if not words and not _TYPED.match(line):
                is_fix, reason = False, line  # `optimizer is one of sgd, adamw`
            elif trial is None or not words or "<" in line:
                is_fix = "<" not in line or not _OF_A_VALUE.match(problem.what)
            else:
                is_fix, reason = trial.judge(words, together if passes and words in first else words)
            if is_fix:
                lines.append(line)
        if not lines:
            problem.why = "; ".join(filter(None, dict.fromkeys((problem.why, reason, f"see {PAGE}"))))
        problem.fix = "\n".join(lines)


class _Trial:
    """The configuration without the words that are wrong, in which fixes are tried.

    Raises:
        MLScaleError: it has an error without any words, too.
    """

    def __init__(self, command: str, argv: Sequence[str], problems: Sequence[MLScaleError]) -> None:
        self._command, self._typed = command, {word.lstrip("+") for word in argv}
        self._others = _list_other_words(command, argv, problems)
        wrong = [word for word in argv if word not in self._others]
        self._names = {fold_name(name) for word in wrong for name in _NAME.findall(word)}
        self._tried: dict[tuple[str, ...], tuple[Request, DictConfig]] = {}
        # Words that are wrong in another way, and not reported yet, say nothing about a fix.
        while () not in self._tried:
            try:
                self._tried[()] = self._compose(())
            except MLScaleError as error:
                if not self._others:
                    raise
                others = _list_other_words(command, self._others, error.list_problems())
                self._others = others if len(others) < len(self._others) else []

    def passes(self, words: tuple[str, ...]) -> bool:
        """Return whether the configuration has no other problems with these words than without them."""
        from mlscale.assembly.ready import find_problems

        try:
            problems = {str(problem) for problem in find_problems(*self._add(words))}
        except MLScaleError:
            return False
        return not problems or problems <= {str(problem) for problem in find_problems(*self._tried[()])}

    def judge(self, words: tuple[str, ...], together: tuple[str, ...]) -> tuple[bool, str]:
        """Return whether words are a fix, tried together with others, and what else the error may report of them."""
        if {word.lstrip("+") for word in words} <= self._typed or not self.passes(together):
            return False, ""
        before, after = self._tried[()][1], self._add(together)[1]
        # As they are written, interpolations unresolved: a derived value that is equal by chance is another setting.
        pairs = [(_select(before, word), _select(after, word)) for word in words]
        if all(old == new for old, new in pairs):
            return False, f"{' '.join(words)} is what this run has"
        shrinks = any(
            isinstance(old, list) and isinstance(new, list) and len(new) == 1 < len(old) for old, new in pairs
        )
        if shrinks and not any("=[" in word for word in self._typed):
            return False, ""
        swaps = [word for word in words if _SWAPS.match(word)]
        if swaps and not any(self._is_named(word.partition("=")[2]) for word in words):
            return False, f"{' '.join(swaps)} has it"
        return True, ""

    def _is_named(self, text: str) -> bool:
        """Return whether what is wrong names an option or a class: another model is not a fix of a key."""
        # Of a dotted path the class: `torch.optim.Adam` is named by who typed `Adam`.
        option = fold_name(text.rpartition(".")[2])
        return bool(_NAME.match(option)) and any(
            name in option or option in name or find_nearest(name, [option]) for name in self._names
        )

    def _add(self, words: tuple[str, ...]) -> tuple[Request, DictConfig]:
        """Return the configuration with more words, unchecked."""
        if words not in self._tried:
            self._tried[words] = self._compose(words)
        return self._tried[words]

    def _compose(self, words: Sequence[str]) -> tuple[Request, DictConfig]:
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from omegaconf import OmegaConf

        from mlscale.assembly.ready import resolve_base_config
        from mlscale.config.composition.argv import build_request, parse_command_line
        from mlscale.config.composition.compose import compose_config

        if words and all("." in word.partition("=")[0] and not word.startswith("~") for word in words):
            # Plain keys are set without composing again, which takes most of the time.
            request, cfg = self._tried[()][0], self._tried[()][1].copy()
            added = build_request(self._command, words, request.roots).overrides
            for override in OverridesParser.create().parse_overrides(list(added)):
                OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=True)
            return replace(request, overrides=(*request.overrides, *added)), cfg
        request = resolve_base_config(parse_command_line(self._command, [*self._others, *words]))
        return request, compose_config(request)


def _read_words(line: str) -> tuple[str, ...]:
    """Return the overrides that a line of a fix begins with, of a sweep its last values; nothing of another line, and
    of Hydra's own settings.
    """
    words: list[str] = []
    for token in _WORD.findall(line.removeprefix("-m ")):
        word = shlex.split(token)[0].rstrip(",;:")
        if not _OVERRIDE.fullmatch(word) or "hydra" in word or "=interval(" in word:
            return ()
        words.append(_SWEPT.sub("=", word))
        if token.endswith((",", ";", ":")):
            break
    return tuple(words)


def _list_other_words(command: str, argv: Sequence[str], problems: Sequence[MLScaleError]) -> list[str]:
    """Return the words without those that are wrong, those of a sweep, and flags, but for the config's folder."""
    from mlscale.config.composition.reference_argument import is_reference

    others = list(argv[:1]) if argv and is_reference(command, argv) else []
    for index, word in enumerate(argv[len(others) :], len(others)):
        wrong = any(f"command line: {word.lstrip('+')}" in f"{problem.where}: {problem.what}" for problem in problems)
        if _OVERRIDE.fullmatch(word) and not _SWEPT.search(word) and not wrong:
            others.append(word)
        elif word in ("--config-dir", "-cd"):
            others += argv[index : index + 2]
    return others


def _select(cfg: DictConfig, word: str) -> Any:
    """Return what a word sets, as it is written; of a recipe everything."""
    from omegaconf import OmegaConf

    from mlscale.config.composition.request import APPENDED

    key = word.lstrip("+~").partition("=")[0].partition("@")[0]
    value: Any = OmegaConf.to_container(cfg, resolve=False)
    for part in key.split(".") if key not in APPENDED else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value
