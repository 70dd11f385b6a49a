"""Show how many samples of a data set are done."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, Self


class SampleProgressBar:
    """A progress bar of samples, on standard error if it is a terminal.

    Args:
        total: number of all samples.
        unit: what is counted.
        before: samples among them that were done by an earlier command.
    """

    def __init__(self, total: int, *, unit: str = "sample", before: int = 0) -> None:
        self._total, self._unit, self._before, self._lock = total, unit, before, threading.Lock()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from tqdm import tqdm

            # A pseudo-terminal may report a width of 0 columns, to which tqdm must not adapt.
            is_sized = os.get_terminal_size(sys.stderr.fileno()).columns > 0
            size: dict[str, Any] = {"dynamic_ncols": True} if is_sized else {"ncols": 100, "nrows": 20}
            self._bar = tqdm(
                total=self._total,
                initial=self._before,
                unit=self._unit,
                unit_scale=self._unit == "byte",
                file=sys.stderr,
                leave=False,
                **size,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add_samples(self, samples: int) -> None:
        """Add samples that are done; called by several threads."""
        if self._bar is not None:
            with self._lock:
                self._bar.update(samples)
