"""The one rule for what an error of the configuration says to type: it is tried before it is printed.

A fix is never what was typed nor the value in force; it passes the check, and keeps what was typed: one number in place
of a list of several, or a place to fill in for a value that was typed, is none. Without a fix the error names the page.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from mlscale.config.names.suggest import find_nearest, fold_name
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.config.composition.request import Request

_PAGE, _NAMES_PAGE = "docs/configuration.md", "docs/names.md"
_WORD = re.compile(r"(?:'[^']*'|\"(?:\\.|[^\"\\])*\"|[^\s'\"])+")
_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*=.+|~[A-Za-z_][\w./@-]*", re.DOTALL)
_SWEPT = re.compile(r"=[^\[{'\"(]*,")  # of a sweep, up to its last value
_NAME = re.compile(r"[A-Za-z]\w+")
_SWAPS = re.compile(r"(model|optimizer|task)(\._target_)?=")
_COUNTED = {f"trainer.{name}" for name in ("devices", "accumulate_grad_batches", "max_epochs", "max_steps")}
# What is not typed, or shows something instead of doing it, is a reason: `optimizer is one of sgd, adamw`.
_TYPED = re.compile(
    r"((leave|write|take|mlscale|pip|python|export|mkdir|mv|choose|sbatch|cd) ?|--?\w|[\[`]|[\w.@~+/-]+[=(])"
)
_SHOWN = re.compile(r"mlscale .*(--help|config show|runs ls)|mlscale \+recipe")
_IS_NAME = re.compile(r"unknown (key|flag|word) ")  # of these the page has the names of other programs


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
                _confirm(_Trial(command, list(argv), error), error.list_problems())
        raise


def _confirm(trial: _Trial, problems: Sequence[MLScaleError]) -> None:
    """Leave each problem those lines of its fix that pass."""
    first = [_read_words(problem.fix.partition("\n")[0]) for problem in problems if "<" not in problem.fix]
    together = _join(words for words in first if not trial.is_doubtful(words, first))
    if not trial.passes(together):  # one may need another, and most errors have fixes that pass
        together, fixes = (), [words for words in first if words and set(words) <= set(together)]
        for words in fixes:
            together = joined if trial.passes(joined := _join((together, words))) else together
    for problem in problems:
        lines, reason = [], ""
        for line in filter(None, problem.fix.split("\n")):
            words = () if "<" in line else _read_words(line)
            if "<" in line:
                is_fix = True  # a key is missing, and only the user knows its value
            elif not words:
                is_fix = bool(_TYPED.match(line)) and not _SHOWN.match(line)
                reason = reason if is_fix else line  # `optimizer is one of sgd, adamw`
            elif set(words) <= set(together):
                is_fix, reason = trial.judge(words, together)
            else:
                is_fix, reason = (
                    trial.judge(words, words) if words not in first and trial.passes(words) else (False, "")
                )
            if is_fix and line.startswith("-m ") and "[" not in line:  # each job of a sweep
                key, _, values = line.split()[1].rstrip(",").partition("=")
                is_fix = all(trial.passes((f"{key}={value}",)) for value in values.split(","))
            if is_fix:
                lines.append(line)
        if not lines:
            page = _NAMES_PAGE if _IS_NAME.match(problem.what) else _PAGE
            problem.why = "; ".join(filter(None, dict.fromkeys((problem.why, reason, f"see {page}"))))
        problem.fix = "\n".join(lines)


def _join(fixes: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the words of several fixes, each once."""
    return tuple(dict.fromkeys(chain(*fixes)))


class _Trial:
    """The configuration without the words that are wrong, in which fixes are tried."""

    def __init__(self, command: str, argv: Sequence[str], error: MLScaleError) -> None:
        self._command, self._typed = command, {word.lstrip("+") for word in argv}
        self._others = _list_other_words(command, argv, error.list_problems())
        wrong = [word for word in argv if word not in self._others]
        self._names = {fold_name(name) for word in wrong for name in _NAME.findall(word)}
        self._tried: dict[tuple[str, ...], tuple[Request, DictConfig]] = {}
        self._retried = error.retried
        what = [re.fullmatch(r"unknown key '(.*)'", problem.what) for problem in error.list_problems()]
        self._unknown = {match[1] for match in what if match}

    def is_doubtful(self, words: tuple[str, ...], fixes: Sequence[tuple[str, ...]]) -> bool:
        """Return whether another fix sets the same key otherwise, or what these words are counted with."""
        set_here = {_get_key(word) for word in words}
        others = {word for other in fixes if other != words for word in other} - {*words}
        keys = {_get_key(word) for word in others}
        typed = " ".join(self._typed)
        counted = "data.batch_size" in set_here or any(word.partition("=")[2] not in typed for word in words)
        return bool(keys & set_here) or (counted and bool(keys & _COUNTED))

    def passes(self, words: tuple[str, ...]) -> bool:
        """Return whether the configuration has no other problems with these words than without them."""
        if not words:
            return True
        from mlscale.assembly.ready import find_problems

        try:
            problems = {str(problem) for problem in find_problems(*self._add(words))}
            return not problems or problems <= {str(problem) for problem in find_problems(*self._add(()))}
        except MLScaleError:
            return False

    def judge(self, words: tuple[str, ...], together: tuple[str, ...]) -> tuple[bool, str]:
        """Return whether words that pass are a fix, and what else the error may report of them.

        Args:
            together: the words that they were tried with.
        """
        if {word.lstrip("+") for word in words} <= self._typed:
            return False, ""
        if all(self._is_in_force(word, together) for word in words):
            return False, f"{' '.join(words)} is what this run has"
        # A number in place of a list of several.
        single = [word for word in words if "=[" in word and "," not in word and "." in _get_key(word)]
        lists = [_select(self._add(())[1], word) for word in single if not any("=[" in typed for typed in self._typed)]
        if any(isinstance(old, list) and len(old) > 1 for old in lists):
            return False, ""
        swaps = [word for word in words if _SWAPS.match(word)]
        if swaps and not any(self._is_named(word.partition("=")[2]) for word in words):
            return False, f"{' '.join(swaps)} has it"
        return True, ""

    def _is_in_force(self, word: str, together: tuple[str, ...]) -> bool:
        """Return whether the run has what a word sets: of an option by what files select, which takes no composition.

        As it is written, interpolations unresolved: a derived value that is equal by chance is another setting.
        """
        from mlscale.config.composition.option_files import find_selecting_option

        roots = self._add(together)[0].roots
        if (group := _get_key(word)) in roots.groups and "~" not in word:
            selected = find_selecting_option(group, self._others, roots, own=False)[1]
            return word.partition("=")[2] == selected
        return bool(_select(self._add(())[1], word) == _select(self._add(together)[1], word))

    def _is_named(self, text: str) -> bool:
        """Return whether what is wrong names an option or a class: another model is not a fix of a key."""
        # Of a dotted path the class: `torch.optim.Adam` is named by who typed `Adam`.
        option = fold_name(text.rpartition(".")[2])
        return bool(_NAME.match(option)) and any(
            name in option or option in name or find_nearest(name, [option]) for name in self._names
        )

    def _add(self, words: tuple[str, ...]) -> tuple[Request, DictConfig]:
        """Return the configuration with more words, unchecked."""
        while words not in self._tried:
            try:
                self._tried[words] = self._compose(words)
            except MLScaleError as error:
                # Words that are wrong in another way, and not reported yet, say nothing about a fix.
                others = _list_other_words(self._command, self._others, error.list_problems())
                if others == self._others:
                    raise
                self._others = others
        return self._tried[words]

    def _find_composed(self, request: Request) -> DictConfig | None:
        """Return a configuration that was composed already, or the one that was checked without the keys that only the
        command line has set: then nothing else depends on them.
        """
        from omegaconf import OmegaConf

        overrides = frozenset(request.overrides)
        if (cfg := self._retried.get(overrides)) is not None:
            return cfg  # type: ignore[no-any-return]
        for composed, checked in self._retried.items():
            added = [word.removeprefix("++").partition("=")[0] for word in composed - overrides]
            if composed > overrides and set(added) <= self._unknown:
                cfg = checked.copy()
                for key in added:
                    head, _, last = key.rpartition(".")
                    parent = OmegaConf.select(cfg, head) if head else cfg
                    if len(parent) == 1:
                        return None  # the command line may have made it, too
                    del parent[last]
                return cfg  # type: ignore[no-any-return]
        return None

    def _compose(self, words: Sequence[str]) -> tuple[Request, DictConfig]:
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from omegaconf import OmegaConf

        from mlscale.assembly.ready import resolve_base_config
        from mlscale.config.composition.argv import build_request, parse_command_line
        from mlscale.config.composition.compose import compose_config

        if words and all("." in _get_key(word) and not word.startswith("~") for word in words):
            # Plain keys are set without composing again, which takes most of the time.
            request, cfg = self._add(())
            cfg = cfg.copy()
            added = build_request(self._command, words, request.roots).overrides
            for override in OverridesParser.create().parse_overrides(list(added)):
                OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=True)
            return replace(request, overrides=(*request.overrides, *added)), cfg
        request = resolve_base_config(parse_command_line(self._command, [*self._others, *words]))
        composed = self._find_composed(request)
        return request, compose_config(request) if composed is None else composed


def _get_key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


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

    key = _get_key(word)
    value: Any = OmegaConf.to_container(cfg, resolve=False)
    for part in key.split(".") if key not in APPENDED else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value
