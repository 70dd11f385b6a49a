"""The page of a model's history: score, drift and latency over time with versions and alerts, and its decisions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mlscale.commands.versions.history import ModelHistory, parse_time
from mlscale.monitor.check_record import CheckRecord
from mlscale.report import Figure, LinePlot, PlotEvent, Series, TableBlock, format_duration, format_number
from mlscale.report.text import format_metric_name
from mlscale.versions.version_reference import CHAMPION

_TIME = "time, UTC"
_ENTRIES = 200  # rows of a table of the page


def build_history_plots(history: ModelHistory) -> tuple[Figure, ...]:
    """Return the plots and tables of the page."""
    return (*_build_plots(history), *_build_tables(history))


def build_version_table(history: ModelHistory) -> TableBlock:
    """Return a row for each version: its metric when it was published, and its last check."""
    rows = []
    for version in history.versions:
        checks = [check for check in history.checks if check.version == version.ref]
        alerts = [alert for check in history.alerts for alert in check.alerts if alert["version"] == version.ref]
        run = version.run or {}
        rows.append(
            [
                version.ref,
                " ".join(history.aliases.list_aliases_of(version.number)) or "-",
                f"{run.get('metric')} {format_number(version.value)}" if version.value is not None else "-",
                f"{len(checks):,}",
                _format_last_score(checks),
                str(sum(alert["status"] == "firing" for alert in alerts)),
                _format_time(version.created),
            ]
        )
    columns = ("version", "aliases", "when published", "checks", "in production", "alerts", "created")
    return TableBlock("Versions", columns, rows)


def _build_plots(history: ModelHistory) -> Iterator[Figure]:
    checks = history.checks
    if not checks:
        return
    events = _list_plot_events(history)
    names = dict.fromkeys(check.score.name for check in checks if check.score)
    # Another version may be of another task type: each score has a plot of its own.
    for name in names:
        scored = [check for check in checks if check.score and check.score.name == name]
        scores = [check.score for check in scored if check.score]
        lines = {
            format_metric_name(name, "monitor"): [score.value for score in scores],
            "lower end": [score.low for score in scores],
            "upper end": [score.high for score in scores],
            "reference": [score.reference for score in scores],
        }
        series = [_build_series(title, scored, values) for title, values in lines.items()]
        shown = format_metric_name(name, "monitor")
        yield LinePlot(shown.capitalize(), series, _TIME, shown, events=events, is_time=True)
    drift = [_build_series("largest change", checks, [check.levels.get("drift") for check in checks])]
    yield LinePlot("Drift", drift, _TIME, "relative to the limit", True, (("limit", 1.0),), events=events, is_time=True)
    labelled = [check.score.labels if check.score else None for check in checks]
    counts = [
        _build_series("events", checks, [check.events for check in checks]),
        _build_series("labelled", checks, labelled),
    ]
    yield LinePlot("Events in the window", counts, _TIME, "events", True, events=events, is_time=True)
    for title, unit, keys in (
        ("Latency", "ms", {"p50": "p50_latency_ms", "p99": "p99_latency_ms"}),
        ("Requests that were not answered", "share", {"rejected": "rejected_share", "failed": "failed_share"}),
    ):
        series = [
            _build_series(name, checks, [check.metrics.get(key) for check in checks]) for name, key in keys.items()
        ]
        if any(math.isfinite(value) for line in series for value in line.y):
            yield LinePlot(title, series, _TIME, unit, True, events=events, is_time=True)


def _build_series(name: str, checks: Sequence[CheckRecord], values: Sequence[float | None]) -> Series:
    """Return a line over the checks, with a gap where the version changes or nothing is known."""
    times: list[float] = []
    ys: list[float] = []
    for before, check, value in zip((None, *checks), checks, values, strict=False):
        time = parse_time(check.time).timestamp()
        # A line from one version to the next would look like a change of either.
        if before is not None and before.version != check.version:
            times.append(time)
            ys.append(math.nan)
        times.append(time)
        ys.append(math.nan if value is None else float(value))
    return Series(name, ys, times)


def _list_plot_events(history: ModelHistory) -> list[PlotEvent]:
    """Return the changes of the champion, and the begins of incidents, from the first check on."""
    first = parse_time(history.checks[0].time).timestamp()
    moves = [move for move in history.aliases.moves if move.alias == CHAMPION and move.after]
    events = [PlotEvent(f"v{move.after}", parse_time(move.time).timestamp()) for move in moves]
    for check in history.checks:
        begun = [alert["rule"] for alert in check.alerts if alert["status"] == "firing"]
        events += [PlotEvent(rule, parse_time(check.time).timestamp(), is_alert=True) for rule in begun]
    # Older ones would stretch the axis to a time without checks.
    return [event for event in events if event.x >= first]


def _build_tables(history: ModelHistory) -> Iterator[Figure]:
    yield build_version_table(history)
    if history.cycles:
        rows = [
            [
                _format_time(cycle.ended or cycle.begun),
                cycle.decision,
                f"{cycle.champion} → {cycle.challenger or '-'}",
                _format_cycle_time(cycle.begun, cycle.ended),
                cycle.reason,
            ]
            for cycle in reversed(history.cycles)
        ]
        columns = ("ended", "decision", "champion → challenger", "took", "reason")
        yield TableBlock("Retraining", columns, rows[:_ENTRIES], _note_left_out(rows))
    entries = history.list_entries()[::-1]
    happened = [[_format_time(entry.time), entry.kind, entry.version, entry.text] for entry in entries]
    marked = [
        index for index, entry in enumerate(entries[:_ENTRIES]) if entry.kind == "alert" and " firing: " in entry.text
    ]
    names = ("time", "kind", "version", "what happened")
    yield TableBlock("What happened", names, happened[:_ENTRIES], _note_left_out(happened), marked)


def _note_left_out(rows: Sequence[object]) -> str:
    more = len(rows) - _ENTRIES
    return f"the newest first; {more:,} older ones are left out" if more > 0 else "the newest first"


def _format_last_score(checks: Sequence[CheckRecord]) -> str:
    known = [check.score for check in checks if check.score and check.score.value is not None]
    if not known:
        return "-"
    last = known[-1]
    ends = [format_number(end, 3) if end is not None else "?" for end in (last.low, last.high)]
    return f"{format_metric_name(last.name, 'monitor')} {format_number(last.value or 0.0, 3)} ({ends[0]} to {ends[1]})"


def _format_cycle_time(begun: str, ended: str) -> str:
    return format_duration((parse_time(ended) - parse_time(begun)).total_seconds()) if ended else "-"


def _format_time(text: str) -> str:
    return text[:16].replace("T", " ")
