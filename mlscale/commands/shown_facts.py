"""Facts of runs and versions as actions print them: sections, known values, metrics, dates and commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mlscale.report.text import format_metric, format_metric_name


def format_section(title: str, text: str) -> str:
    """Return a text below its title, indented; '' for an empty one."""
    return f"\n{title}\n" + "\n".join("  " + line for line in text.splitlines()) if text else ""


def select_known(pairs: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    """Return the pairs of a name and a value that is not None."""
    return [(name, value) for name, value in pairs if value is not None]


def list_metrics(metrics: Mapping[str, float | None], command: str = "train") -> list[tuple[str, object]]:
    """Return the readable names and values of the metrics that are known."""
    return [
        (format_metric_name(name, command), format_metric(name, value))
        for name, value in metrics.items()
        if value is not None
    ]


def format_date(time: str) -> str:
    """Return the date and the minute of a time in ISO 8601."""
    return time[:16].replace("T", " ")


def format_commit(code: Mapping[str, Any]) -> str | None:
    """Return the commit of a run's code; None where it is unknown."""
    if not code.get("commit"):
        return None
    # The commit alone would suggest that the code can be checked out as it ran.
    return f"{str(code['commit'])[:12]}{' and uncommitted changes' if code.get('dirty') else ''}"
