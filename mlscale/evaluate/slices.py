"""Evaluate slices: the same metric for parts of the samples, and a test of each part against the rest.

A slice is one value of a column: of a CSV file by sample, of members of the shards, or a measured property of images.
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
from mlscale.evaluate.report_wording import LEAST, Judged, chance, entry, in_numbers, in_percent
from mlscale.report import Heading, Table
from mlscale.report.text import percent
from mlscale.stats.bootstrap import bootstrap
from mlscale.stats.discoveries import benjamini_hochberg
from mlscale.stats.intervals import Interval, wilson

Named = Mapping[str, Sequence[str | float | None]]
"""Column to the value of each sample, None where it has none."""

_MOST_VALUES = 20  # of a column of words: rarer ones are 'others'
_WHOLE_VALUES = 10  # of a column of numbers: more are cut at the quartiles
_SHOWN = 60  # rows of the table; the JSON result has all
FDR = 0.05  # share of false findings among the slices that are reported as different


@dataclass(frozen=True)
class Slice:
    """A part of the samples.

    Attributes:
        column, value: the value that its samples share.
        samples: their number.
        figure: their metric; a share where `share`, else a mean of the loss.
        rest: the same metric of all other samples.
        q: the false-discovery rate at which it counts as different from the rest; NaN where it was not tested.
    """

    column: str
    value: str
    samples: int
    figure: Interval
    rest: float
    q: float

    @property
    def small(self) -> bool:
        """True if it has too few samples for a test."""
        return self.samples < LEAST

    def worse(self, share: bool) -> float:
        """Return the distance to the rest, positive where the slice is worse."""
        return self.rest - self.figure.value if share else self.figure.value - self.rest


def judge(named: Named, good: NDArray[Any], *, share: bool, figure: str, seed: int = 0) -> Judged:
    """Return the slices, worst first. Those of at least 30 samples are tested against the rest (Fisher's exact test for
    shares, Welch's for mean losses); over all tests, the false-discovery rate is at most 5 %.

    Args:
        named: the columns.
        good: of each sample, true if it is predicted correctly (bool), or its loss.
        share: true for the former, false for the loss.
        figure: the metric's name.
        seed: of the intervals of a loss.
    """
    found, tested = [], []
    for column, values in named.items():
        parts = groups(values)
        # A single value has no rest to compare with.
        for value, mask in parts if len(parts) > 1 else ():
            one = _slice(column, value, mask, good, share, seed)
            found.append(one)
            tested.append(_p(good[mask], good[~mask], share) if not one.small else float("nan"))
    # All columns are corrected together, as one family of tests; NaN marks slices that were not tested.
    known = [p for p in tested if p == p]
    qs = iter(benjamini_hochberg(known, FDR).q)
    found = [
        Slice(each.column, each.value, each.samples, each.figure, each.rest, next(qs) if p == p else p)
        for each, p in zip(found, tested, strict=True)
    ]
    found.sort(key=lambda each: (each.small, -each.worse(share)))
    worse = [each for each in found if each.q <= FDR and each.worse(share) > 0]
    shown = in_percent if share else in_numbers
    told = [
        f"{each.column} {each.value} is worse than the rest: {figure} {shown(each.figure)} of {each.samples:,}"
        for each in worse[:2]
    ]
    told += [f"{len(worse) - 2} more slices are worse than the rest"] if len(worse) > 2 else []
    return Judged(
        metrics={"slices": len(found), "worse_slices": len(worse)},
        headline="",
        remarks=told or ([f"no slice of {len(found)} is shown to be worse than the rest"] if found else []),
        figures=_figures(found, share, figure, len(worse)),
        details={
            "slices": [
                {
                    "column": each.column,
                    "value": each.value,
                    "samples": each.samples,
                    figure: entry(each.figure),
                    f"{figure}_of_the_rest": each.rest,
                    "q": each.q,
                    "small": each.small,
                }
                for each in found
            ]
        },
    )


def groups(values: Sequence[str | float | None]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return the values of a column, each with its mask of samples, bool (n,). Samples without a value are in none."""
    numbers = _numbers(values)
    if numbers is not None and len(np.unique(numbers[np.isfinite(numbers)])) > _WHOLE_VALUES:
        return _quartiles(numbers)
    words = np.array(["" if value is None else _word(value) for value in values], object)
    there, counts = np.unique(words[words != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    often = [str(there[place]) for place in order[:_MOST_VALUES]]
    found = [(word, words == word) for word in sorted(often)]
    rare = [there[place] for place in order[_MOST_VALUES:]]
    return found + ([(f"{len(rare)} others", np.isin(words, rare))] if rare else [])


def _quartiles(numbers: NDArray[np.float64]) -> list[tuple[str, NDArray[np.bool_]]]:
    known = np.isfinite(numbers)
    # Equal quantiles collapse: a value that half of the samples have gives fewer than four slices, none of them empty.
    cuts = np.unique(np.quantile(numbers[known], [0, 0.25, 0.5, 0.75, 1]))
    # Slices include their lower end; the clip puts the largest value into the last one.
    place = np.clip(np.searchsorted(cuts, numbers, "right") - 1, 0, len(cuts) - 2)
    names = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(cuts)]
    return [(name, known & (place == number)) for number, name in enumerate(names)]


def _numbers(values: Sequence[str | float | None]) -> NDArray[np.float64] | None:
    """Return a column as numbers, NaN where a value is missing; None if one is a word."""
    try:
        found = np.array([np.nan if value in (None, "") else float(value) for value in values], np.float64)
    except ValueError:
        return None
    return found if np.isfinite(found).any() else None


def _word(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _slice(column: str, value: str, mask: NDArray[np.bool_], good: NDArray[Any], share: bool, seed: int) -> Slice:
    ours, others = good[mask], good[~mask]
    if share:
        figure = wilson(int(ours.sum()), len(ours))
    else:
        rows = np.stack([ours, np.ones(len(ours))], 1)
        figure = bootstrap(rows, lambda sums: sums[:, :1] / sums[:, 1:], seed=seed)[0]
    return Slice(column, value, len(ours), figure, float(others.mean()) if len(others) else float("nan"), float("nan"))


def _p(ours: NDArray[Any], others: NDArray[Any], share: bool) -> float:
    """Return the p-value of a slice against the others; NaN if these are too few for a test."""
    from scipy.stats import fisher_exact, ttest_ind_from_stats

    if share:
        table = [[int(each.sum()), int((~each).sum())] for each in (ours, others)]
        return float(fisher_exact(table).pvalue) if len(others) else float("nan")
    if len(others) < LEAST:
        return float("nan")
    # A test of the means, as they are shown: a test of ranks also finds different spreads of the same mean.
    with np.errstate(all="ignore"):
        sides = [(each.mean(), each.std(ddof=1), len(each)) for each in (ours, others)]
        mine, theirs = (mean for mean, _, _ in sides)
        if not abs(mine - theirs) > 1e-12 * abs(theirs):  # a rounding error, or NaN
            return 1.0
        p = float(ttest_ind_from_stats(*sides[0], *sides[1], equal_var=False).pvalue)
    return 1.0 if np.isnan(p) else p  # a loss that is infinite shows no difference of means


def _figures(found: Sequence[Slice], share: bool, figure: str, worse: int) -> list[Heading | Table]:
    shown, text = list(found[:_SHOWN]), in_percent if share else in_numbers
    rows = [
        (
            f"{each.column}: {each.value}",
            f"{each.samples:,}",
            text(each.figure),
            percent(each.rest, 1, unit=" %") if share else f"{each.rest:.3g}",
            "too few" if each.small else chance(each.q),
        )
        for each in shown
    ]
    red = [place for place, each in enumerate(shown) if each.q <= FDR and each.worse(share) > 0]
    note = (
        f"q: the false-discovery rate at which a slice counts as different from the rest, of {len(found)} slices "
        f"together; in red: worse, q ≤ {FDR}. Slices below {LEAST} samples are not tested."
    )
    title = f"{len(found)} slices, {worse} shown to be worse than the rest"
    return [
        Heading("Slices", "Parts of the samples against all others, worst first."),
        Table(title, ("slice", "samples", figure, "the rest", "q"), rows, note, red),
    ]


def from_csv(path: str, keys: Sequence[str]) -> dict[str, list[str | float | None]]:
    """Return the columns of a CSV file whose first column holds keys of samples.

    Raises:
        MLScaleError: it can't be read, has no columns, or none of its keys is a sample's.
    """
    where, (heads, *rows) = f"slices={path}", lines_of(path)
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
        head: [line[place] if (line := known.get(key)) and place < len(line) else None for key in keys]
        for place, head in enumerate(heads)
        if place
    }


def lines_of(path: str) -> list[list[str]]:
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
            fix="a first line such as key,camera,country; then a line a sample",
        )
    return lines


def from_members(extension: str, contents: Iterable[bytes]) -> dict[str, list[str | float | None]]:
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
                f"member .{extension} of sample {number} is no text",
                where=f"slices={extension}",
                why=str(error)[:200],
                fix="slices=brightness, or the extension of a member that is a text or JSON",
            ) from error
        fields = value if isinstance(value, dict) else {extension: value}
        rows.append({str(k): v for k, v in fields.items() if isinstance(v, str | int | float)})
    # Objects may have different fields; a dict keeps the order in which they first occur.
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
