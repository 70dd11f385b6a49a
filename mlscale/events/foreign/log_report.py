"""The counts of a conversion: what was read from a log, and what was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from mlscale.events.foreign.log_files import RecordPlace


@dataclass
class LogReport:
    """The counts of a conversion.

    Attributes:
        rows: that were read.
        events, labels: that were written.
        unreadable: rows, or labels, that can't be read, by reason; and an example of each.
        other_versions: rows of other versions, by their name.
        early: rows before the time from which they were wanted.
        newest: the time of the newest row of the version, early ones included; None without any.
    """

    rows: int = 0
    events: int = 0
    labels: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    other_versions: Counter[str] = field(default_factory=Counter)
    early: int = 0
    newest: datetime | None = None

    def add_unreadable(self, what: str, where: RecordPlace, why: str) -> None:
        """Count a row that can't be read."""
        self.unreadable[what] += 1
        if what not in self.examples:
            self.examples[what] = f"{where}: {why}"

    def describe_losses(self) -> str:
        """Return the rows that are not events in words; '' if there are none."""
        parts = [
            f"{_count_rows(count)} can't be read by the {what} ({self.examples[what]})"
            for what, count in self.unreadable.most_common()
        ]
        if self.other_versions:
            listed = ", ".join(f"{name} ({count:,})" for name, count in self.other_versions.most_common(3))
            parts.append(f"{_count_rows(self.other_versions.total())} of other versions: {listed}")
        return "; ".join(parts)


def _count_rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"
