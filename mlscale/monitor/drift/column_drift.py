"""One result of the comparison of a column with its sketch, and its description in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlscale.reference.column_sketch import ColumnSketch, NumberSketch
from mlscale.report import format_number
from mlscale.report.text import format_percent

DriftKind = Literal[
    "distribution", "tails", "missing", "range", "constant", "unit", "new category", "lost class", "type",
    "stuck", "repeated", "clipped", "rounded",
]  # fmt: skip
QUALITY: tuple[DriftKind, ...] = (
    "type", "constant", "repeated", "stuck", "unit", "missing", "new category", "lost class", "range", "clipped",
    "rounded",
)  # fmt: skip
"""The kinds that concern the quality of the data, which no cycle explains; the others concern its distribution."""

STILL = 0.25  # standard deviations of a median that has not moved much
_SPREAD = 1.2  # times as wide, or as narrow, from which on a change is one of the spread
GROUP = "group"
"""The name of the column with the group of each event, such as its user; it is not compared."""

Column = NDArray[np.float64] | NDArray[np.object_]
"""The values of a column: float64, NaN where missing; or strings, None where missing."""


@dataclass(frozen=True, eq=False)
class ColumnDrift:
    """One column of the window, compared with the reference by one test.

    Attributes:
        name: of the column, such as `input.age`.
        label: its name in sentences.
        kind: what has changed: the distribution, its tails, or the quality of the data.
        before, now: medians of numbers; of a category, its share; of tails and quality, the share of such samples.
        distance: 0 to 1, the effect size: of numbers the largest difference of the distribution functions
            (Kolmogorov–Smirnov), of categories the share that went elsewhere (total variation), else the difference of
            the shares.
        p: the chance of such a difference, or a larger one, where nothing has changed.
        reference, sample: the two sides that were compared.
        effective: the number of independent samples that are worth as much as those of the window.
        shift: from `before` to `now`, in standard deviations of the reference; NaN for all but numbers.
        category: of a category column, the one that `before` and `now` are about; of another unit, what converts the
            reference to it; '' if none.
        q: the smallest false-discovery rate, over all columns, at which it is a find.
        is_significant: True if it is significant at the requested rate.
        may_be_cycle: True if it is significant, but a phase of a cycle could explain it.
    """

    name: str
    label: str
    kind: DriftKind
    before: float
    now: float
    distance: float
    p: float
    reference: ColumnSketch = field(repr=False)
    sample: Column | None = field(repr=False)
    effective: float
    shift: float = math.nan
    category: str = ""
    q: float = math.nan
    is_significant: bool = False
    may_be_cycle: bool = False

    @property
    def group(self) -> str:
        """The group of the column: inputs or outputs."""
        return self.reference.group

    @property
    def is_detected(self) -> bool:
        """True if it is significant, and not explained by a cycle."""
        return self.is_significant and not self.may_be_cycle

    @property
    def metric_name(self) -> str:
        """The name of the column as a part of names of metrics: `input_age`."""
        # The group's dot alone: the others are of the column's name, such as `Außentemp. [°C]`.
        return self.name.replace(".", "_", 1)

    def format_change(self) -> str:
        """Return the change in words: age higher by 0.62 σ (34 → 41 years), q < 1e-9."""
        return f"{self._describe_change()}, q {format_q_value(self.q)}"

    def _describe_change(self) -> str:
        before, now = self._format_side(self.before), self._format_side(self.now)
        match self.kind:
            case "type":
                return f"{self.label} is absent or of another type"
            case "constant" if self.category:
                return f"{self.label} is {self.category!r} in {now}, {before} before"
            case "unit":
                return f"{self.label} looks like another unit ({before} → {now}, as after {self.category})"
            case "constant":
                return f"{self.label} is constant ({format_number(self.now, 3)})"
            case "stuck":
                return f"{self.label} is stuck at {format_number(self.now, 3)} for {self.before:,.0f} events in a row"
            case "repeated":
                return f"{self.label} is the one before in {before}, up to {self.now:,.0f} times in a row"
            case "clipped":
                return f"{self.label} is clipped at {format_number(self.now, 3)} ({self.before:,.0f} events)"
            case "rounded":
                return f"{self.label} is rounded to {self.now:.0f} decimals"
            case "missing":
                return f"{self.label} is missing in {now}, {before} before"
            case "range":
                return f"{self.label} is out of the reference's range in {now}"
            case "new category":
                return f"{self.label} has the new category {self.category!r} ({now})"
            case "lost class":
                return f"{self.label} is never {self.category!r}, {before} before"
            case "tails":
                return f"{self.label} has more extreme values ({before} → {now})"
            case "distribution" if (ratio := self._measure_spread()) != 1:
                return f"{self.label} has {format_number(ratio, 2)} times the spread"
            case "distribution":
                # Medians may agree where the rest has moved: '0 → 0' would look like a mistake.
                values = f" ({before} → {now}{self._format_unit()})" if before != now else ""
                return f"{self.label} {self._describe_direction()}{values}"

    def _measure_spread(self) -> float:
        """Return the interquartile range relative to the reference's, where that has changed more than the median; else
        1.
        """
        if not isinstance(self.reference, NumberSketch) or self.sample is None or not abs(self.shift) < STILL:
            return 1.0
        low, high = np.nanquantile(self.sample.astype(np.float64), (0.25, 0.75))
        before = float(np.subtract(*np.quantile(self.reference.values, (0.75, 0.25))))
        ratio = float(high - low) / before if before else math.nan
        return ratio if max(ratio, 1 / ratio if ratio else 0.0) >= _SPREAD and math.isfinite(ratio) else 1.0

    def _describe_direction(self) -> str:
        if not isinstance(self.reference, NumberSketch):
            return f"share of {self.category!r} {'higher' if self.now > self.before else 'lower'}"
        if math.isnan(self.shift) or abs(self.shift) < 0.005:
            return "changed its distribution"
        # An infinite shift is one away from a column whose values are equal, or are so once they are rounded.
        size = f"by {format_number(abs(self.shift), 2)} σ" if math.isfinite(self.shift) else "than all before"
        return f"{'higher' if self.shift > 0 else 'lower'} {size}"

    def _format_side(self, value: float) -> str:
        if self.kind in ("distribution", "unit") and isinstance(self.reference, NumberSketch):
            return format_number(value, 3)
        # Three digits of a small share: 0.04 % is not 0 %.
        return format_percent(value, 0 if value >= 0.1 or value == 0 else 2 if value < 0.01 else 1, unit=" %")

    def _format_unit(self) -> str:
        unit = self.reference.unit if isinstance(self.reference, NumberSketch) else ""
        return f" {unit}" if unit else ""


def format_q_value(value: float) -> str:
    """Return the sign and the digits of a q-value: `= 0.012`."""
    # So small a value comes from the tail of an approximation: its digits mean nothing.
    return "< 1e-9" if value < 1e-9 else f"= {value:.2g}"
