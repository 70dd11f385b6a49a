"""`mlscale versions history`: a model over time, as a table, as JSON, and as a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from mlscale.atomic_files import convert_to_json, write_setting_file
from mlscale.commands.options import Options
from mlscale.commands.shown_facts import format_date
from mlscale.commands.versions.history import HistoryEntry, ModelHistory, collect_history, parse_time
from mlscale.contracts.output_document import Answer
from mlscale.monitor.check_record import CheckRecord
from mlscale.report import Figure, LinePlot, PlotEvent, Series, TableBlock, format_duration, format_number, format_table
from mlscale.report.html import render_page
from mlscale.report.terminal import wrap_text
from mlscale.report.text import format_count, format_metric_name
from mlscale.versions import open_registry
from mlscale.versions.version_reference import CHAMPION

_WHOLE = 1_000_000  # characters of a line that is not cut


def show_history(options: Options) -> Answer:
    """Return the history of a model.

    Raises:
        MLScaleError: no such model, no such checks, a corrupt file, or the page can't be written (exit code 5).
    """
    history = collect_history(
        open_registry(options.registry_root),
        options.name,
        _resolve_path(options.events),
        state=_resolve_path(options.state) if options.state else None,
        watched=options.watched,
    )
    # First, so that a page that can't be written is an error and not the end of a long table.
    page = _write_history_page(history, _resolve_path(options.page)) if options.page else None
    versions, entries = build_version_table(history), history.list_entries()
    # The latest are at the end, next to the prompt.
    shown = entries[-options.last :] if options.last else entries
    more = len(entries) - len(shown)
    blocks = [
        summarize_history(history),
        "\n" + format_table(versions.rows, versions.columns),
        # In whole: the text of an entry continues below its beginning.
        "\n" + wrap_text(format_table(_list_entry_rows(shown), width=_WHOLE)),
        f"\n{more:,} earlier ones are left out: last=0 shows all" if more else "",
        f"\npage  {page}" if page else "",
    ]
    return Answer("versions-history", _build_document(history, page), blocks)


def summarize_history(history: ModelHistory) -> str:
    """Return a model's history in one sentence."""
    # An incident has two alerts, and is one.
    begun = sum(alert["status"] == "firing" for check in history.alerts for alert in check.alerts)
    promoted = sum(cycle.decision == "promoted" for cycle in history.cycles)
    parts = [
        format_count(len(history.versions), "version"),
        f"champion {history.champion or 'none'}",
        f"{format_count(len(history.cycles), 'retraining cycle')}, {promoted:,} promoted",
        format_count(begun, "alert"),
        f"{format_count(len(history.checks), 'check')} of {history.watched}" if history.watched else "no checks yet",
    ]
    if history.others:
        parts.append(f"others: {', '.join(history.others)}")
    return f"{history.name}: {', '.join(parts)}"


def _write_history_page(history: ModelHistory, page: Path) -> Path:
    # As of the latest check: earlier incidents may be over.
    firing = history.checks[-1].firing if history.checks else ()
    text = render_page(
        f"history · {history.name}",
        summarize_history(history) + (f"\nalerting: {', '.join(firing)}" if firing else ""),
        not firing,
        {},
        {},
        build_history_plots(history),
    )
    write_setting_file("page", page, text)
    return page


def _build_document(history: ModelHistory, page: Path | None) -> dict[str, object]:
    document: dict[str, object] = convert_to_json(
        {
            "model": history.name,
            "champion": history.champion,
            "watched": history.watched or None,
            "others": history.others,
            "entries": [asdict(entry) for entry in history.list_entries()],
            "cycles": [cycle.build_journal_record() for cycle in history.cycles],
            "checks": [check.build_document() for check in history.checks],
            "page": str(page) if page else None,
        }
    )
    return document


def _resolve_path(text: str) -> Path:
    return Path(text).expanduser().absolute()


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
                format_date(version.created),
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
                format_date(cycle.ended or cycle.begun),
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
    happened = _list_entry_rows(entries)
    marked = [
        index for index, entry in enumerate(entries[:_ENTRIES]) if entry.kind == "alert" and " firing: " in entry.text
    ]
    names = ("time", "kind", "version", "what happened")
    yield TableBlock("What happened", names, happened[:_ENTRIES], _note_left_out(happened), marked)


def _list_entry_rows(entries: Sequence[HistoryEntry]) -> list[list[str]]:
    return [[format_date(entry.time), entry.kind, entry.version, entry.text] for entry in entries]


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
