"""The fixes that an error of the configuration offers: never what was typed, nor the value in force.

What shows something instead of doing it is a reason; without anything to type the error names the page.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from mlscale.config.composition.argv import check_overrides, parse_flags
from mlscale.config.composition.fixes_in_force import OVERRIDE, read_words
from mlscale.config.composition.reference_argument import add_reference_key, check_replaced_keys
from mlscale.config.schema.model_arguments import REFERENCES
from mlscale.config.schema.roots import find_roots
from mlscale.errors import Exit, MLScaleError

_PAGE, _NAMES_PAGE = "docs/configuration.md", "docs/names.md"
# `optimizer is one of sgd, adamw` is not typed.
_TYPED = re.compile(
    r"((leave|write|take|mlscale|pip|python|export|mkdir|mv|choose|sbatch|cd) ?|--?\w|[\[`]|[\w.@~+/-]+[=(])"
)
_SHOWN = re.compile(r"mlscale .*(--help|config show|runs ls)|mlscale \+recipe")
_SWEEP = re.compile(r"=(?:\w+\()?([^,()]*).*")  # over several values, of which the first is checked
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
        move_examples(error, typed)
        words_before = {word.lstrip("+") for word in typed}
        wrong = {problem.where.removeprefix("command line: ").lstrip("+~") for problem in error.list_problems()}
        offered = (word for problem in error.list_problems() for word in read_words(problem.fix.partition("\n")[0]))
        rest = [*(word for word in typed if word.lstrip("+~") not in wrong), *offered]
        for problem in error.list_problems() if error.exit == Exit.USER else ():
            lines, reasons = [], [problem.why]
            for line in filter(None, problem.fix.split("\n")):
                objection = _find_objection(line, rest, command)
                # `metrics=accuracy` is metric=val/accuracy; what is taken out is not set.
                if objection is not None and objection.fix and not line.startswith("~"):
                    line = objection.fix.partition("\n")[0]
                    objection = _find_objection(line, rest, command)
                words = {word.lstrip("+") for word in read_words(line)}
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


def move_examples(error: MLScaleError, typed: Sequence[str]) -> None:
    """Let lines that set the key of a wrong typed value to another one, and not to that one read otherwise, be a
    reason: `augment.mixup=0.2` for `augment.mixup=-1`.
    """
    values = dict(word.lstrip("+").partition("=")[::2] for word in typed)
    for problem in error.list_problems():
        for line in problem.fix.split("\n"):
            key, _, value = next(iter(read_words(line)), "").partition("=")
            new, old = (re.sub(r"[^1-9a-z]", "", text.lower()) for text in (value, values.get(key, value)))
            if new != old and problem.what.startswith((f"{key} is ", f"{key.rpartition('.')[2]} is ")):
                problem.fix = "\n".join(other for other in problem.fix.split("\n") if other != line)
                problem.why = "; ".join(filter(None, (problem.why, f"such as {line}")))


def _find_objection(line: str, rest: Sequence[str], command: str) -> MLScaleError | None:
    """Return why what a line sets is refused itself, with the other words that are to be typed; None if it is not."""
    sweep = line.removeprefix("-m ")
    words = [word if sweep == line else _SWEEP.sub(r"=\1", word) for word in read_words(sweep)]
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    if not words:
        return None
    if not set(words) <= set(rest):  # else all are checked at once
        rest = [*(word for word in rest if word.lstrip("+~").partition("=")[0] not in keys), *words]
    named = "|".join(rf"(?<![\w.]){re.escape(key)}(?![\w.])" for key in keys)
    # The config of a run is not read again.
    takes, has_recipe = REFERENCES.get(command), any(word.lstrip("+").startswith("recipe=") for word in rest)
    of_run = takes is not None and not (takes.is_optional and has_recipe)
    problems = (
        [*check_replaced_keys(command, add_reference_key(command, rest))]
        if of_run
        else _check_words(tuple(rest), command)
    )
    return next((problem for problem in problems if re.search(named, f"{problem.what} {problem.where}")), None)


@lru_cache(maxsize=1)
def _check_words(words: Sequence[str], command: str) -> Sequence[MLScaleError]:
    known, typed = parse_flags(words)
    overrides = [word for word in typed if OVERRIDE.fullmatch(word)]
    return check_overrides(command, overrides, find_roots(known.config_dir))[2]
