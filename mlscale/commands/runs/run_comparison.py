"""`mlscale runs diff`: what differs between two runs, on the terminal and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mlscale.commands.options import Options
from mlscale.commands.runs.diff_page import save_diff_page
from mlscale.commands.runs.show_run import print_section
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit
from mlscale.report import format_key_values, format_table
from mlscale.report.terminal import get_terminal_width
from mlscale.report.text import format_metric as shown_metric
from mlscale.report.text import format_metric_name
from mlscale.runs.compare import Pairs, compare_runs
from mlscale.runs.edited import report_edits
from mlscale.runs.find import find_run


def show_difference(options: Options) -> int:
    """Print the differences of two runs, and write the page; return the exit code."""
    first, second = find_run(options.first, options.runs_dir), find_run(options.second, options.runs_dir)
    for run in (first, second):
        report_edits(run)
    difference = compare_runs(first, second)
    named = Path(options.page).expanduser().absolute() if options.page else None
    page = save_diff_page(first, second, difference, named)
    if options.output == "json":
        paths = {"first": str(first.path), "second": str(second.path), "page": page and str(page)}
        print_document("runs-diff", {**paths, **difference.as_dict()})
        return int(Exit.DONE)
    names = ("", first.path.name, second.path.name)
    print(format_key_values([("first", first.path), ("second", second.path)]))
    shown = {"config": difference.config, "started from": difference.facts, "derived": difference.derived}
    for title, pairs in shown.items():
        print_section(title, _format_pairs(pairs, names))
    metrics = [
        (format_metric_name(name), *(_format_metric_value(name, value) for value in pair))
        for name, pair in difference.metrics.items()
    ]
    print_section("metrics", _format_section_table(metrics, names) if metrics else "")
    print_section("code", "\n".join(difference.code))
    print_section("packages", _format_pairs(difference.packages, names))
    if not (any(shown.values()) or difference.code or difference.packages):
        print("\nthey were started the same way")
    print(f"\npage  {page or f'not written, as {second.path} can not be written to: page=diff.html'}")
    return int(Exit.DONE)


def _format_pairs(pairs: Pairs, names: Sequence[str]) -> str:
    rows = [(name, *map(_format_value, pair)) for name, pair in pairs.items()]
    return _format_section_table(rows, names) if pairs else ""


def _format_section_table(rows: Sequence[Sequence[object]], names: Sequence[str]) -> str:
    # A section is indented by two.
    return format_table(rows, names, get_terminal_width() - 2)


def _format_value(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value


def _format_metric_value(name: str, value: float | None) -> str | None:
    return None if value is None else shown_metric(name, value)
