"""Evaluate slices: the same metric for parts of the samples, and a test of each part against the rest.

A slice is one value of a column: of a CSV file by sample, or of members of the shards.
A column of many different numbers is cut at its quartiles.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.report import Heading, TableBlock
from mlscale.report.text import format_percent
from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.discoveries import apply_benjamini_hochberg
from mlscale.stats.intervals import Interval, compute_wilson_interval
from mlscale.task_types.report_wording import (
    MIN_RELIABLE_SAMPLES,
    EvaluationReport,
    format_number_interval,
    format_p_value,
    format_share_interval,
    serialize_interval,
)

SliceColumns = Mapping[str, Sequence[str | float | None]]
"""Column to the value of each sample, None where it has none."""

_MAX_VALUES = 20  # of a column of words: rarer ones are 'others'
_MAX_DISTINCT_NUMBERS = 10  # of a column of numbers: more are cut at the quartiles
_MAX_TABLE_ROWS = 60  # rows of the table; the JSON result has all
FDR = 0.05  # share of false findings among the slices that are reported as different


@dataclass(frozen=True)
class Slice:
    """A part of the samples.

    Attributes:
        column, value: the value that its samples share.
        samples: their number.
        metric: their metric; a share where `is_share`, else a mean of the loss.
        rest: the same metric of all other samples.
        q: the false-discovery rate at which it counts as different from the rest; NaN where it was not tested.
    """

    column: str
    value: str
    samples: int
    metric: Interval
    rest: float
    q: float

    @property
    def is_small(self) -> bool:
        """True if it has too few samples for a test."""
        return self.samples < MIN_RELIABLE_SAMPLES

    def measure_gap(self, share: bool) -> float:
        """Return the distance to the rest, positive where the slice is worse."""
        return self.rest - self.metric.value if share else self.metric.value - self.rest


def build_slice_report(
    columns: SliceColumns, good: NDArray[Any], *, share: bool, metric_name: str, seed: int = 0
) -> EvaluationReport:
    """Return the slices, worst first. Those of at least 30 samples are tested against the rest (Fisher's exact test for
    shares, Welch's for mean losses); over all tests, the false-discovery rate is at most 5 %.

    Args:
        columns: the columns.
        good: of each sample, true if it is predicted correctly (bool), or its loss.
        share: true for the former, false for the loss.
        metric_name: the metric's name.
        seed: of the intervals of a loss.
    """
    results, tested = [], []
    for column, values in columns.items():
        parts = split_by_value(values)
        # A single value has no rest to compare with.
        for value, mask in parts if len(parts) > 1 else ():
            one = _measure_slice(column, value, mask, good, share, seed)
            results.append(one)
            tested.append(_compute_p_value(good[mask], good[~mask], share) if not one.is_small else float("nan"))
    # All columns are corrected together, as one family of tests; NaN marks slices that were not tested.
    known = [p for p in tested if p == p]
    qs = iter(apply_benjamini_hochberg(known, FDR).q)
    results = [
        Slice(result.column, result.value, result.samples, result.metric, result.rest, next(qs) if p == p else p)
        for result, p in zip(results, tested, strict=True)
    ]
    results.sort(key=lambda result: (result.is_small, -result.measure_gap(share)))
    worse = [result for result in results if result.q <= FDR and result.measure_gap(share) > 0]
    shown = format_share_interval if share else format_number_interval
    remarks = [
        f"{result.column} {result.value} is worse than the rest: "
        f"{metric_name} {shown(result.metric)} of {result.samples:,}"
        for result in worse[:2]
    ]
    remarks += [f"{len(worse) - 2} more slices are worse than the rest"] if len(worse) > 2 else []
    return EvaluationReport(
        metrics={"slices": len(results), "worse_slices": len(worse)},
        headline="",
        remarks=remarks or ([f"no slice of {len(results)} is shown to be worse than the rest"] if results else []),
        blocks=_build_slice_blocks(results, share, metric_name, len(worse)),
        details={
            "slices": [
                {
                    "column": result.column,
                    "value": result.value,
                    "samples": result.samples,
                    metric_name: serialize_interval(result.metric),
                    f"{metric_name}_of_the_rest": result.rest,
                    "q": result.q,
                    "small": result.is_small,
                }
                for result in results
            ]
        },
    )


def split_by_value(values: Sequence[str | float | None]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return the values of a column, each with its mask of samples, bool (n,). Samples without a value are in none."""
    numbers = _parse_number_column(values)
    if numbers is not None and len(np.unique(numbers[np.isfinite(numbers)])) > _MAX_DISTINCT_NUMBERS:
        return _split_at_quartiles(numbers)
    words = np.array(["" if value is None else _format_slice_value(value) for value in values], object)
    distinct, counts = np.unique(words[words != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    often = [str(distinct[index]) for index in order[:_MAX_VALUES]]
    parts = [(word, words == word) for word in sorted(often)]
    rare = [distinct[index] for index in order[_MAX_VALUES:]]
    return parts + ([(f"{len(rare)} others", np.isin(words, rare))] if rare else [])


def _split_at_quartiles(numbers: NDArray[np.float64]) -> list[tuple[str, NDArray[np.bool_]]]:
    known = np.isfinite(numbers)
    # Equal quantiles collapse: a value that half of the samples have gives fewer than four slices, none of them empty.
    cuts = np.unique(np.quantile(numbers[known], [0, 0.25, 0.5, 0.75, 1]))
    # Slices include their lower end; the clip puts the largest value into the last one.
    bin_index = np.clip(np.searchsorted(cuts, numbers, "right") - 1, 0, len(cuts) - 2)
    names = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(cuts)]
    return [(name, known & (bin_index == number)) for number, name in enumerate(names)]


def _parse_number_column(values: Sequence[str | float | None]) -> NDArray[np.float64] | None:
    """Return a column as numbers, NaN where a value is missing; None if one is a word."""
    try:
        numbers = np.array([np.nan if value in (None, "") else float(value) for value in values], np.float64)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).any() else None


def _format_slice_value(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _measure_slice(
    column: str, value: str, mask: NDArray[np.bool_], good: NDArray[Any], share: bool, seed: int
) -> Slice:
    inside, others = good[mask], good[~mask]
    if share:
        metric = compute_wilson_interval(int(inside.sum()), len(inside))
    else:
        rows = np.stack([inside, np.ones(len(inside))], 1)
        metric = bootstrap_intervals(rows, lambda sums: sums[:, :1] / sums[:, 1:], seed=seed)[0]
    return Slice(
        column, value, len(inside), metric, float(others.mean()) if len(others) else float("nan"), float("nan")
    )


def _compute_p_value(inside: NDArray[Any], others: NDArray[Any], share: bool) -> float:
    """Return the p-value of a slice against the others; NaN if these are too few for a test."""
    from scipy.stats import fisher_exact, ttest_ind_from_stats

    if share:
        table = [[int(side.sum()), int((~side).sum())] for side in (inside, others)]
        return float(fisher_exact(table).pvalue) if len(others) else float("nan")
    if len(others) < MIN_RELIABLE_SAMPLES:
        return float("nan")
    # A test of the means, as they are shown: a test of ranks also finds different spreads of the same mean.
    with np.errstate(all="ignore"):
        sides = [(side.mean(), side.std(ddof=1), len(side)) for side in (inside, others)]
        mine, theirs = (mean for mean, _, _ in sides)
        if not abs(mine - theirs) > 1e-12 * abs(theirs):  # a rounding error, or NaN
            return 1.0
        p = float(ttest_ind_from_stats(*sides[0], *sides[1], equal_var=False).pvalue)
    return 1.0 if np.isnan(p) else p  # a loss that is infinite shows no difference of means


def _build_slice_blocks(
    results: Sequence[Slice], share: bool, metric_name: str, worse: int
) -> list[Heading | TableBlock]:
    shown, text = list(results[:_MAX_TABLE_ROWS]), format_share_interval if share else format_number_interval
    rows = [
        (
            f"{result.column}: {result.value}",
            f"{result.samples:,}",
            text(result.metric),
            format_percent(result.rest, 1, unit=" %") if share else f"{result.rest:.3g}",
            "too few" if result.is_small else format_p_value(result.q),
        )
        for result in shown
    ]
    red = [index for index, result in enumerate(shown) if result.q <= FDR and result.measure_gap(share) > 0]
    note = (
        f"q: the false-discovery rate at which a slice counts as different from the rest, of {len(results)} slices "
        f"together; in red: worse, q ≤ {FDR}. Slices below {MIN_RELIABLE_SAMPLES} samples are not tested."
    )
    title = f"{len(results)} slices, {worse} shown to be worse than the rest"
    return [
        Heading("Slices", "Parts of the samples against all others, worst first."),
        TableBlock(title, ("slice", "samples", metric_name, "the rest", "q"), rows, note, red),
    ]


def read_csv_columns(path: str, keys: Sequence[str]) -> dict[str, list[str | float | None]]:
    """Return the columns of a CSV file whose first column holds keys of samples.

    Raises:
        MLScaleError: it can't be read, has no columns, or none of its keys is a sample's.
    """
    where, (heads, *rows) = f"slices={path}", read_csv_lines(path)
    known = {line[0]: line for line in rows}
    # Some keys may be missing on either side: a file may list a subset, or samples of other splits. None at all is a
    # mistake.
    if not any(key in known for key in keys):
        raise MLScaleError(
            "none of the keys in the slices is a sample's",
            where=where,
            why=f"its first is {rows[0][0]!r} and a sample's is {keys[0]!r}" if rows else "it has no lines",
            fix="the first column holds keys as the table of samples has them (results/evaluate-samples.parquet)",
        )
    return {
        # A short line has no value for the last columns.
        head: [line[index] if (line := known.get(key)) and index < len(line) else None for key in keys]
        for index, head in enumerate(heads)
        if index
    }


def read_csv_lines(path: str) -> list[list[str]]:
    """Return the lines of a CSV file of slices, the names of its columns first.

    Raises:
        MLScaleError: it can't be read, or has no columns.
    """
    where = f"slices={path}"
    try:
        with open(Path(path).expanduser(), newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MLScaleError(
            "the slices can't be read",
            where=where,
            why=getattr(error, "strerror", None) or str(error),
            fix="slices=<a CSV file whose first column is the sample's key, one column for each way to slice>",
        ) from error
    if not lines or len(lines[0]) < 2:
        raise MLScaleError(
            "the slices have no column",
            where=where,
            fix="write `key,camera,country`, or another first line like it, and then a line a sample",
        )
    return lines


def parse_member_columns(extension: str, contents: Iterable[bytes]) -> dict[str, list[str | float | None]]:
    """Return columns from a member of each sample: the single values of a JSON object, or a text.

    Raises:
        MLScaleError: a member is neither.
    """
    rows: list[dict[str, Any]] = []
    for number, content in enumerate(contents):
        try:
            text = content.decode("utf-8")
            value = json.loads(text) if extension.rsplit(".", 1)[-1] == "json" else text.strip()
        except ValueError as error:
            raise MLScaleError(
                f"member .{extension} of sample {number} is not text",
                where=f"slices={extension}",
                why=str(error)[:200],
                fix="slices=<the extension of a member that is a text or JSON>, or a CSV file of key,value lines",
            ) from error
        fields = value if isinstance(value, dict) else {extension: value}
        rows.append({str(k): v for k, v in fields.items() if isinstance(v, str | int | float)})
    # Objects may have different fields; a dict keeps the order in which they first occur.
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
