"""The commands that the pages of docs/ and the cards of recipes tell people to type: of `bash` blocks, and of tables
that say 'you type'.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from scripts.readme_commands import blocks

ROOT = Path(__file__).resolve().parents[1]
_FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w*\n(?P<text>.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`(mlscale [^`]+)`")
_COMMENT = re.compile(r"\s+#\s.*$")
_BASH = re.compile(r"^```bash\n.*?^```$", flags=re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"^\s*(?:(?:python -m )?mlscale (?:[\w-]+ )*\S+=|pip install ).*$", flags=re.MULTILINE)
_OURS = (["mlscale"], ["python", "-m", "mlscale"])


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: its name.
        text: as typed, without its comment.
        run: whether the page says that it can be run; else it says why not.
    """

    page: str
    text: str
    run: bool = True

    @property
    def words(self) -> list[str]:
        """What comes after `mlscale`, up to a redirection, a pipe or an `&`; nothing for another program."""
        words = list(takewhile(lambda word: word not in (">", "|", "&"), shlex.split(self.text)))
        return next((words[len(name) :] for name in _OURS if words[: len(name)] == name), [])


def commands(page: Path) -> list[Command]:
    """The commands of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in blocks(text):
        found += [Command(page.name, _COMMENT.sub("", line)) for line in block.commands]
        found += [Command(page.name, _COMMENT.sub("", line), run=False) for line in block.not_run]
    return [each for command in found for each in _parts(command)] + [
        Command(page.name, typed, run=False) for typed in _in_tables(text)
    ]


def files(page: Path) -> dict[str, str]:
    """The files that a page tells to write, by their place: `<!-- file: my_net.py -->` before a block."""
    return {match["name"]: match["text"] for match in _FILE.finditer(page.read_text(encoding="utf-8"))}


def overlooked(page: Path) -> list[str]:
    """Lines that look like a command, and stand in no `bash` block, so that nothing tests them."""
    return [line.strip() for line in _TYPED.findall(_BASH.sub("", page.read_text(encoding="utf-8")))]


def pages() -> list[Path]:
    """The pages and the cards, sorted; README is tested by itself."""
    return sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "recipes/cards").glob("*.md"))


def _parts(command: Command) -> Iterator[Command]:
    """`cd x && mlscale y` is two."""
    for part in command.text.split(" && "):
        yield Command(command.page, part, command.run)


def _in_tables(text: str) -> Iterator[str]:
    """Of the right column of tables 'you had | you type'."""
    rows = re.search(r"^\| you had \| you type \|\n\|.*\n(?P<rows>(?:\|.*\n)+)", text, flags=re.MULTILINE)
    for row in rows["rows"].splitlines() if rows else ():
        yield from _CODE.findall(row.split(" | ")[-1])
