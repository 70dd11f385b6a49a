"""Name the folder of runs that was typed in commands that messages suggest: without it they would mean other runs."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence

_KEY = "runs_dir="
# Commands that read runs. An action takes its key before the run that it names; another command names the run first.
_COMMAND = re.compile(
    r"\bmlscale(?: (?:runs [a-z]+|versions add)\b"
    r"| (?:evaluate|predict|export|compress|estimate|profile|drill|verify-resume)\b(?: last\b| [0-9a-z]{12}\b)?"
    r"|(?= (?:like|resume|init_from)=))"
)
_WORDS: list[str] = []


@contextlib.contextmanager
def use_typed_words(words: Sequence[str]) -> Iterator[None]:
    """Let what this process prints in the block have the `runs_dir` in these words of its command line."""
    before = [*_WORDS]
    _WORDS[:] = words
    try:
        yield
    finally:
        _WORDS[:] = before


def add_typed_folder(text: str) -> str:
    """Return a message whose commands for runs have the `runs_dir` that was typed; as it is where none was."""
    typed = next((word for word in _WORDS if word.startswith(_KEY)), "")
    if not typed or "mlscale " not in text:
        return text

    def complete(match: re.Match[str]) -> str:
        line = text[match.end() :].partition("\n")[0]
        return match[0] if _KEY in line else f"{match[0]} {shlex.quote(typed)}"

    return _COMMAND.sub(complete, text)
