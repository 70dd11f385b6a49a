"""The grammar of a fix: each line is one thing to type, and may end in a reason.

    trainer.devices=2                           overrides, of the command that was typed
    mlscale runs resume last: from its last checkpoint       a command of this or another program
    MASTER_PORT=29500                           a variable of the environment
    leave data.mix out                          words to take out of what was typed
    write `- override /model: resnet`           a line of a file
    `mlscale.load("last")`                      an expression of Python

`<…>` is a place to fill in. What is to be typed ends at `, `, `; `, `: ` or three spaces outside quotes.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

PLACE = "PLACE"  # stands for `<…>`, and for what only is known when the error is raised
_FILLED_IN = re.compile(r"<[^<>]+>")
_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*=.*|~[A-Za-z_][\w./@-]*", re.DOTALL)
_VARIABLE = re.compile(r"(?!PLACE=)[A-Z][A-Z0-9_]*=\S.*")
_FLAG = re.compile(r"-m|--[a-z-]+|--PLACE|job")
_REFERENCE = re.compile(r"[\w.-]+(?:@[\w-]+|:v?(?:\d+|PLACE)|:latest)|\d\w{5,}")
_SEPARATORS = (", ", "; ", ": ", "   ")
PROGRAMS = frozenset(
    """
    apt apt-get cd chmod cp curl eval export find gunzip gzip iconv jq kill ls mkdir mlscale mpirun mv
    pip python rm sbatch scontrol sh sinfo srun tar torchrun truncate unset wandb
    """.split()  # noqa: SIM905
)
"""Programs that a fix may start: this one, and what is on any machine where its error is possible."""


@dataclass(frozen=True)
class Line:
    """One line of a fix.

    Attributes:
        kind: overrides, command, variable, reference, leave, write, yaml, python; choice: one of several options; open:
            only the error at run time shows it; prose is not to be typed.
        typed: what is to be typed, with `PLACE` for what is to be filled in.
        reason: what follows it.
    """

    kind: str
    typed: str
    reason: str

    @cached_property
    def words(self) -> list[str]:
        """Return the words as a shell splits them; nothing where it can't."""
        return _split_words(self.typed)


def parse_fix(fix: str) -> list[Line]:
    """Return the lines of a fix."""
    return [_parse_line(line) for line in fix.split("\n")]


def _parse_line(line: str) -> Line:
    text = _FILLED_IN.sub(PLACE, line).replace("={}", f"={PLACE}")  # a template of the source
    if match := re.match(r"write (`[^`]+`|'[^']+')", text):
        return Line("write", match[1][1:-1], text[match.end() :])
    if match := re.match(r"(?:leave|take) (\S.*?) out(?=$|[,;:]| of )", text):
        return Line("leave", match[1], text[match.end() :])
    if re.match(r"[\w./-]+: \S", text):
        return Line("yaml", text, "")
    if re.match(r"[\w.]+ is (?:one|a key) of ", text):
        return Line("choice", text, "")
    end = _find_end(text)
    typed, reason = text[:end], text[end:].strip(" ,;:")
    if _is_python(typed):
        return Line("python", typed, reason)
    return Line(_classify(_split_words(typed)), typed, reason)


def _classify(words: list[str]) -> str:
    if not words:
        return "prose"
    if words[0] in PROGRAMS:
        return "command"
    if all(_VARIABLE.fullmatch(word) for word in words):
        return "variable"
    if words[0].lstrip(".").startswith(PLACE) and "=" not in words[0].removeprefix(PLACE):
        return "open"
    if len(words) == 1 and words[0].endswith(f".{PLACE}"):
        return "open"
    if all(_OVERRIDE.fullmatch(word) or _FLAG.fullmatch(word) or word == PLACE for word in words):
        return "overrides"
    if len(words) == 1 and _REFERENCE.fullmatch(words[0]):
        return "reference"
    # Variables in front of a command, as in a shell.
    if _VARIABLE.fullmatch(words[0]) and any(word in PROGRAMS for word in words):
        return "command"
    return "prose"


def _is_python(text: str) -> bool:
    try:
        tree = ast.parse(text.replace("{!r}", "0"), mode="eval")
    except SyntaxError:
        return False
    return isinstance(tree.body, ast.Call | ast.ListComp | ast.List | ast.Subscript)


def _split_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote
        return []


def _find_end(text: str) -> int:
    """Return where the reason begins: at the first separator that no quote encloses."""
    quote, depth = "", 0
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth:
            continue
        elif text.startswith(_SEPARATORS, index):
            return index
    return len(text)


def find_mentions(reason: str) -> Iterator[str]:
    """Yield the overrides and commands that the reason behind a fix names."""
    yield from re.findall(r"(?<![\w./])[a-z_]+(?:\.[\w]+)+=[^\s,;:)]*", reason)
