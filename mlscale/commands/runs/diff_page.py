"""The page of `mlscale runs diff`: the curves of two runs in the same plots, and what differs between the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.report import Figure, Heading, TableBlock, format_number
from mlscale.report.curves import LOGGED, build_compared_plots, read_metric_points
from mlscale.report.html import render_page, save_page
from mlscale.report.text import format_count, format_metric, format_metric_name
from mlscale.runs.compare import Pairs, RunComparison
from mlscale.runs.folder import RunFolder

_MAX_ROWS = 100  # of a table
_MAX_CELL = 300  # characters


def render_diff_page(first: RunFolder, second: RunFolder, difference: RunComparison) -> str:
    """Return the page of a comparison, as HTML; secrets are masked in what is of either run."""
    names = (first.path.name, second.path.name)
    logged = [read_metric_points(run.path / LOGGED) for run in (first, second)]
    metric = next((str(name) for run in (first, second) if (name := run.run.get("metric"))), "train/loss")
    plots = build_compared_plots(dict(zip(names, logged, strict=True)), metric)
    blocks = [
        Heading("Curves", "" if plots else "None: nothing was logged to metrics.csv, which logger=csv writes."),
        *plots,
        Heading("Metrics"),
        _build_metric_table(names, difference.metrics),
        Heading("What differs"),
        *_build_difference_tables(names, difference),
    ]
    mask = first.masker.mask_text
    return render_page(
        f"runs diff · {names[0]} · {names[1]}",
        mask(_format_sentence(names, metric, difference)),
        True,
        {},
        {"first": str(first.path), "second": str(second.path)},
        [block.mask_texts(mask) for block in blocks],
    )


def _format_sentence(names: Sequence[str], metric: str, difference: RunComparison) -> str:
    """Return the best value of the key metric in both runs, and how much differs."""
    pair = difference.metrics.get(f"best_{metric}") or difference.metrics.get(metric)
    values = [
        f"{name}: {metric} {_format_value(metric, value)}" for name, value in zip(names, pair or (), strict=False)
    ]
    counts = [
        format_count(len(content), noun)
        for content, noun in ((difference.config, "setting"), (difference.code, "code file"))
        if content
    ]
    return "; ".join([*(values or [f"{names[0]} and {names[1]}"]), f"{' and '.join(counts) or 'no setting'} differ"])


def _build_metric_table(names: Sequence[str], metrics: Pairs) -> TableBlock:
    rows = [
        (format_metric_name(name), *(_format_value(name, value) for value in pair))
        for name, pair in list(metrics.items())[:_MAX_ROWS]
    ]
    return TableBlock("At the end", ("metric", *names), rows)


def _build_difference_tables(names: Sequence[str], difference: RunComparison) -> list[Figure]:
    """Return a table for each kind of difference; a sentence where there is none."""
    kinds: Mapping[str, Pairs] = {
        "Settings": difference.config,
        "Started from": difference.facts,
        "Derived": difference.derived,
        "Packages": difference.packages,
    }
    tables: list[Figure] = [
        TableBlock(title, ("", *names), [(name, *map(_cut_value, pair)) for name, pair in pairs.items()][:_MAX_ROWS])
        for title, pairs in kinds.items()
        if pairs
    ]
    if difference.code:
        tables.append(TableBlock("Code", ("file that differs",), [(path,) for path in difference.code[:_MAX_ROWS]]))
    return tables or [Heading("Nothing", "They were started the same way.")]


def _format_value(name: str, value: float | None) -> str:
    return "–" if value is None else format_metric(name, value)


def _cut_value(value: object) -> str:
    text = "–" if value is None else format_number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_CELL else text[:_MAX_CELL] + "…"


def save_diff_page(first: RunFolder, second: RunFolder, difference: RunComparison, page: Path | None) -> Path | None:
    """Write the page to `page`, by default among the results of the second run; return its path, or None where that
    run is someone else's, whose folder can't be written to.

    Raises:
        MLScaleError: a page that was named can't be written (exit code 5).
    """
    text = render_diff_page(first, second, difference)
    path = page or second.path / "results" / f"diff-{first.id}.html"
    try:
        save_page(path, text)
    except MLScaleError:
        if page is not None:
            raise
        return None
    return path
