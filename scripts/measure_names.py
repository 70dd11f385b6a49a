"""Measure names, docstrings, comments, types and function lengths of mlscale/, and the words that users see.

    python -m scripts.measure_names                            # now, the floor and the target of each measure
    python -m scripts.measure_names --check                    # exit code 1 if one is worse than its floor
    python -m scripts.measure_names --list verbs mlscale/runs   # the places that count against a measure

A floor is what was reached once: set it to the new value in `MEASURES` whenever a measure got better. Verbs and banned
words are those of `scripts/naming_rules.py`. Banned words are looked for in the names that mlscale defines (modules,
classes, functions, arguments, variables, attributes) and in what users read: texts in the code, README and the other
pages at the top, docs/ without decisions/, the comments and values of conf/ and recipes/, and the contracts' schemas.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.measured_code import Code, Place, read_code
from scripts.naming_rules import NOUNS_ALONE, QUESTION_WORDS, QUESTIONS, VERBS
from scripts.user_texts import banned_names, banned_texts

ROOT = Path(__file__).resolve().parents[1]
_LONG = 40  # lines of code of a module that is not too short for a comment
_LONGEST = 60  # lines of a function, its docstring included, that is read at once


@dataclass(frozen=True)
class Measured:
    """What was found for a measure.

    Attributes:
        value: the measure.
        places: what counts against it.
    """

    value: float
    places: Sequence[Place]


@dataclass(frozen=True)
class Measure:
    """A measure with its floor and its target.

    Attributes:
        key: how `--list` names it.
        text: what it is, with its unit.
        rising: whether more is better.
        floor: the worst value that passes `--check`.
        target: where it should get to.
    """

    key: str
    text: str
    rising: bool
    floor: float
    target: float
    of: Callable[[Code], Measured]

    def is_worse(self, value: float) -> bool:
        """Whether a value falls short of the floor, as printed."""
        return round(value, 1) < self.floor if self.rising else round(value, 1) > self.floor


def measure_verbs(code: Code) -> Measured:
    """Share of function names that begin with a verb, in percent."""
    named = [function for function in code.functions if not function.name.startswith(QUESTIONS)]
    others = [
        Place(function.path, function.line, function.name)
        for function in named
        if not begins_with_verb(function.name, function.returns_nothing)
    ]
    return Measured(100 - _share(len(others), len(named)), others)


def begins_with_verb(name: str, returns_nothing: bool = False) -> bool:
    """Return whether a function's name begins with a verb, by the lists of `naming_rules`."""
    first, *rest = name.split("_")
    return first in VERBS and (bool(rest) or first not in NOUNS_ALONE or returns_nothing)


def measure_words(code: Code) -> Measured:
    """Mean number of words in a function's name."""
    words = [len(function.name.split("_")) for function in code.functions]
    short = [Place(each.path, each.line, each.name) for each in code.functions if "_" not in each.name]
    return Measured(sum(words) / max(len(words), 1), short)


def measure_docstrings(code: Code) -> Measured:
    """Share of docstrings that open with a question word, in percent."""
    places = [each for each in code.docstrings if each.text.split()[:1] and _first(each.text) in QUESTION_WORDS]
    return Measured(
        _share(len(places), len(code.docstrings)), [Place(p.path, p.line, p.text.splitlines()[0]) for p in places]
    )


def measure_comments(code: Code) -> Measured:
    """Lines of comment per 100 lines of code; the places are long modules without any."""
    bare = [(lines, path) for path, lines in code.lines.items() if lines >= _LONG and not code.comments[path]]
    places = [Place(path, 1, f"{lines} lines of code without a comment") for lines, path in sorted(bare, reverse=True)]
    return Measured(_share(sum(code.comments.values()), sum(code.lines.values())), places)


def measure_class_names(code: Code) -> Measured:
    """Number of names that several classes have."""
    return _shared(code.classes)


def measure_module_names(code: Code) -> Measured:
    """Number of names that modules of several packages have; `__init__` and the commands' `entry` do not count."""
    return _shared([each for each in code.modules if each.text not in ("__init__", "__main__", "entry")])


def measure_any(code: Code) -> Measured:
    """Share of the annotated arguments that are annotated `Any`, in percent."""
    return Measured(_share(len(code.any_arguments), code.arguments), code.any_arguments)


def measure_lengths(code: Code) -> Measured:
    """Number of functions that are longer than a screen, 60 lines."""
    places = [place for place, length in code.lengths if length > _LONGEST]
    return Measured(len(places), places)


def measure_banned_names(code: Code) -> Measured:
    """Number of banned words in names that mlscale defines."""
    places = list(banned_names(code.names))
    return Measured(len(places), places)


def measure_banned_texts(code: Code) -> Measured:
    """Number of banned words in what users read."""
    places = list(banned_texts(code.root, code.texts))
    return Measured(len(places), places)


def _shared(named: Sequence[Place]) -> Measured:
    by_name: dict[str, list[Place]] = {}
    for place in named:
        by_name.setdefault(place.text, []).append(place)
    twice = {name: places for name, places in by_name.items() if len(places) > 1}
    return Measured(len(twice), [place for name in sorted(twice) for place in twice[name]])


def _share(part: int, whole: int) -> float:
    return 100 * part / max(whole, 1)


def _first(text: str) -> str:
    return text.split()[0].strip("\"'`,:;.?").lower()


MEASURES = (
    Measure("verbs", "function names that begin with a verb, %", True, 96, 60, measure_verbs),
    Measure("words", "words per function name", True, 2.3, 1.9, measure_words),
    Measure("docstrings", "docstrings that open with what/whether/how/…, %", False, 0.5, 1, measure_docstrings),
    Measure("comments", "comments per 100 lines of code", True, 6.0, 6, measure_comments),
    Measure("banned-names", "banned words in names", False, 0, 0, measure_banned_names),
    Measure("banned-texts", "banned words in what users read", False, 0, 0, measure_banned_texts),
    Measure("classes", "class names used twice", False, 0, 5, measure_class_names),
    Measure("modules", "module names used in two packages", False, 1, 10, measure_module_names),
    Measure("any", "arguments annotated Any, %", False, 0.8, 1.5, measure_any),
    Measure("lengths", "functions over 60 lines", False, 21, 2, measure_lengths),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit code 1 if a measure is worse than its floor")
    parser.add_argument(
        "--list", choices=[measure.key for measure in MEASURES], help="the places that count against it"
    )
    parser.add_argument("under", nargs="?", default="", help="with --list: only below this folder")
    options = parser.parse_args(argv)
    code = read_code(ROOT)
    if options.list:
        (chosen,) = [measure for measure in MEASURES if measure.key == options.list]
        print("\n".join(str(place) for place in chosen.of(code).places if place.path.startswith(options.under)))
        return 0
    values = {measure.key: measure.of(code).value for measure in MEASURES}
    print("\n".join(table_lines(values)))
    worse = [measure for measure in MEASURES if measure.is_worse(values[measure.key])]
    for measure in worse if options.check else ():
        print(
            f"{measure.text}: {values[measure.key]:.1f} is worse than the floor of {measure.floor:g}; "
            f"python -m scripts.measure_names --list {measure.key} shows where",
            file=sys.stderr,
        )
    return 1 if options.check and worse else 0


def table_lines(values: dict[str, float]) -> Iterator[str]:
    """Yield the lines of the table: one for each measure."""
    yield f"{'':14} {'':48} {'now':>7} {'floor':>7} {'target':>8}"
    for measure in MEASURES:
        sign = "≥" if measure.rising else "≤"
        yield (
            f"{measure.key:14} {measure.text:48} {values[measure.key]:7.1f} {measure.floor:7g} "
            f"{f'{sign} {measure.target:g}':>8}"
        )


if __name__ == "__main__":
    sys.exit(main())
