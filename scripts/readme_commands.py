"""The commands of a Markdown file: its ``bash`` blocks, so that CI and the tests run what readers type.

A block takes a name from a comment on the line above it: ``<!-- block: install -->``. A command that can't run
everywhere ends in ``# not run: why``.

    python -m scripts.readme_commands README.md install
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^(?:<!-- block: (?P<name>[\w-]+) -->\n)?```bash\n(?P<body>.*?)^```$", flags=re.MULTILINE | re.DOTALL
)
_NOT_RUN = re.compile(r"#\s*not run:\s*(?P<why>\S.*)$")


@dataclass(frozen=True)
class Block:
    """One fenced block: the commands to run, and those that say why they are not run."""

    name: str
    commands: tuple[str, ...]
    not_run: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """All ``bash`` blocks of a Markdown text, in order; continued lines are joined, comments dropped."""
    found = []
    for match in _BLOCK.finditer(text):
        joined = re.sub(r"\s*\\\n\s*", " ", match["body"])
        lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        found.append(
            Block(
                name=match["name"] or "",
                commands=tuple(line for line in lines if not _NOT_RUN.search(line)),
                not_run=tuple(line for line in lines if _NOT_RUN.search(line)),
            )
        )
    return found


def main(path: str, name: str) -> None:
    """Print the commands of the one block with this name."""
    chosen = [block for block in blocks(Path(path).read_text()) if block.name == name]
    if len(chosen) != 1:
        sys.exit(f"{path} has {len(chosen)} blocks named '{name}'; it should have one")
    print("\n".join(chosen[0].commands))


if __name__ == "__main__":
    main(*sys.argv[1:])
