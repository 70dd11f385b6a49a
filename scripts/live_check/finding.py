"""A finding of a live check, and the table of all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

HEAD = "| what | status | proven by | seen | date |\n|---|---|---|---|---|\n"
_ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?:proven|failed|not here) \|.*$", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """A finding.

    Attributes:
        what: was tried; the key of its row.
        status: proven; failed; or not here, where this machine lacks what it takes.
        by: product and version that has proven it, or what is lacking.
        seen: numbers, in a few words.
    """

    what: str
    status: Literal["proven", "failed", "not here"]
    by: str
    seen: str = ""
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def format_line(self) -> str:
        """Return a line for the terminal."""
        return f"{self.status:8}  {self.what:44}  {self.by}{f': {self.seen}' if self.seen else ''}"

    def format_row(self) -> str:
        """Return a row of the table."""
        cells = (" ".join(text.split()).replace("|", "/") for text in (self.what, self.status, self.by, self.seen))
        return f"| {' | '.join(cells)} | {self.date} |"


def format_findings(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the row of each finding by what was tried."""
    return {finding.what: finding.format_row() for finding in findings}


def merge_findings(page: str, rows: dict[str, str]) -> str:
    """Return a page with the rows in its table: those that are there already are replaced, others follow them.

    What was proven before stays where this machine lacks what it takes.
    """
    rows = dict(rows)

    def replace_row(match: re.Match[str]) -> str:
        row = rows.pop(match["what"], match[0])
        return match[0] if "| not here |" in row else row

    page = _ROW.sub(replace_row, page)
    if not rows:
        return page
    added = "\n".join(rows.values()) + "\n"
    if HEAD not in page:
        return f"{page.rstrip()}\n\n{HEAD}{added}".lstrip()
    at = page.index(HEAD) + len(HEAD)
    end = next((at + match.start() for match in re.finditer(r"^(?!\|)", page[at:], re.MULTILINE)), len(page))
    return page[:end] + added + page[end:]
