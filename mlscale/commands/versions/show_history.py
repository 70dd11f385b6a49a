"""`mlscale versions history`: a model over time, as a table, as JSON, and as a page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap

from mlscale.atomic_files import convert_to_json
from mlscale.commands.options import Options
from mlscale.commands.versions.history import HistoryEntry, ModelHistory, collect_history
from mlscale.commands.versions.history_page import build_history_plots, build_version_table
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit
from mlscale.report import format_table
from mlscale.report.html import render_page, save_page
from mlscale.report.text import format_count, measure_width
from mlscale.versions import open_registry

_WIDTH = 80  # characters of a line where the output is not a terminal
_LEAST_TEXT = 24


def show_history(options: Options) -> int:
    """Print the history of a model; return the exit code.

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
    if options.output == "json":
        print_document("versions-history", _build_document(history, page))
        return int(Exit.DONE)
    versions, entries = build_version_table(history), history.list_entries()
    # The latest are at the end, next to the prompt.
    shown = entries[-options.last :] if options.last else entries
    width = shutil.get_terminal_size(fallback=(_WIDTH, 24)).columns
    print(summarize_history(history))
    print("\n" + format_table(versions.rows, versions.columns))
    print("\n" + format_table(_wrap_entries(shown, width), ("time", "kind", "version", "what happened"), width))
    if len(shown) < len(entries):
        print(f"\n{len(entries) - len(shown):,} earlier ones are left out: last=0 shows all")
    if page:
        print(f"\npage  {page}")
    return int(Exit.DONE)


def _wrap_entries(entries: Sequence[HistoryEntry], width: int) -> list[tuple[str, str, str, str]]:
    """Return the rows of a table, a text in several ones where it is longer than a line of `width` characters."""
    labels = [(entry.time[:16].replace("T", " "), entry.kind, entry.version) for entry in entries]
    taken = [max((measure_width(label[column]) for label in labels), default=0) for column in range(3)]
    # Two spaces before each further column.
    text_width = max(_LEAST_TEXT, width - sum(max(size, len("version")) + 2 for size in taken))
    rows = []
    for label, entry in zip(labels, entries, strict=True):
        for number, line in enumerate(wrap(entry.text, text_width) or [""]):
            rows.append((*(label if number == 0 else ("", "", "")), line))
    return rows


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
    save_page(page, text)
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
