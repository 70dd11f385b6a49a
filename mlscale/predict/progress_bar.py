"""Show the progress of batch scoring: a progress bar on a terminal, else a line every 30 seconds."""

from __future__ import annotations

import sys
import time

from mlscale.report.sample_bar import SampleProgressBar
from mlscale.report.text import format_duration

_LINES_EVERY_S = 30.0  # few enough lines for a log file of a long job


class ScoringProgressBar(SampleProgressBar):
    """A progress bar of rows, on standard error.

    Args:
        total: number of all rows.
        before: rows among them that were done by an earlier command.
    """

    def __init__(self, total: int, before: int) -> None:
        super().__init__(total, unit="input", before=before)
        self._done, self._errors = before, 0
        self._started = self._printed = time.monotonic()

    def add_rows(self, rows: int, errors: int) -> None:
        """Add rows that are done, and the number of them that could not be read."""
        self._done, self._errors = self._done + rows, self._errors + errors
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._errors:,} unreadable" if self._errors else "", refresh=False)
            self._bar.update(rows)
            return
        now = time.monotonic()
        if now - self._printed >= _LINES_EVERY_S:
            self._printed = now
            # Rows of an earlier command do not count for the rate.
            rate = (self._done - self._before) / (now - self._started)
            left = format_duration((self._total - self._done) / rate) if rate else "?"
            print(
                f"predict   {self._done:,} of {self._total:,}, {rate:,.0f}/s, {left} left", file=sys.stderr, flush=True
            )
