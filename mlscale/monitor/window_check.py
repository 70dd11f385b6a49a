"""One look at a window: the level of each rule relative to its limit, its metrics, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mlscale.monitor.baseline import Baseline
from mlscale.monitor.drift import Column, drift
from mlscale.monitor.event_window import Window
from mlscale.report import number, text
from mlscale.stats.intervals import Interval, quantile, wilson

RULES = {
    "drift": "inputs or predictions are not what they were; that alone is no damage",
    "damage": "by its labels, the model is less accurate than it was",
    "latency": "answers are slow",
    "failures": "requests are rejected or fail",
    "no_data": "too few events to say anything",
}


@dataclass(frozen=True)
class Limits:
    """The limits of the rules, and the data that they need.

    Attributes:
        fdr: of drift: the highest chance that a look finds drift where there is none.
        min_distance: of drift: smallest distance of a column that counts, 0 to 1; see `Column.distance`.
        min_events, min_labels: with fewer, the rules are undecided.
        tolerance: the accuracy that may be lost, 0 to 1.
        confidence: of the intervals of accuracy, latency and failures, two-sided.
        p99_ms: of latency; None: no limit.
        max_failures: share of requests that may be rejected or fail; None: no limit.
    """

    fdr: float = 0.01
    min_distance: float = 0.1
    min_events: int = 100
    min_labels: int = 50
    tolerance: float = 0.05
    confidence: float = 0.95
    p99_ms: float | None = None
    max_failures: float | None = 0.05


@dataclass(frozen=True)
class Signal:
    """The result of one rule.

    Attributes:
        rule: one of `RULES`.
        level: relative to the limit, 1 or more is over it; None where there are too few data.
        sentence: the result in words.
        metrics: name_unit to value; NaN where it is not known.
    """

    rule: str
    level: float | None
    sentence: str
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.level is not None and self.level >= 1


@dataclass(frozen=True)
class Look:
    """The results of all rules for one version in one window.

    Attributes:
        version: such as `resnet:v7`.
        signals: of each rule that has a limit.
        columns: of drift; empty where there are too few events.
        events: the number of events in the window.
    """

    version: str
    signals: tuple[Signal, ...]
    columns: tuple[Column, ...] = field(repr=False)
    events: int

    def signal(self, rule: str) -> Signal | None:
        return next((signal for signal in self.signals if signal.rule == rule), None)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of all rules, and for each rule 1 if it is over its limit, 0 if not, NaN if undecided."""
        found: dict[str, float] = {"events": self.events}
        for signal in self.signals:
            found[signal.rule] = math.nan if signal.level is None else float(signal.over)
        for signal in self.signals:
            found |= signal.metrics
        return found

    @property
    def sentence(self) -> str:
        """The results of all rules in one sentence."""
        no_data = self.signal("no_data")
        # Without data the other rules are undecided, so their sentences would only repeat that.
        if no_data and no_data.over:
            said = [no_data.sentence, *(each.sentence for each in self.signals if each.over and each is not no_data)]
        else:
            said = [signal.sentence for signal in self.signals if signal.sentence]
        drifted, damage = self.signal("drift"), self.signal("damage")
        if drifted and drifted.over and damage and damage.level is None:
            said.append("labels would tell whether that is damage")
        return f"{self.version}: {', '.join(said)}"


def look(baseline: Baseline, window: Window, limits: Limits) -> Look:
    """Check one window by all rules.

    Raises:
        MLScaleError: the events have other channels than the baseline.
    """
    enough = window.answered >= limits.min_events
    columns = drift(baseline, window, limits.fdr) if enough else ()
    signals = [
        _drift(columns, window, limits),
        _damage(baseline, window, limits),
        _latency(window, limits),
        _failures(window, limits),
        _no_data(window, limits),
    ]
    return Look(baseline.version, tuple(filter(None, signals)), columns, window.events)


def _drift(columns: tuple[Column, ...], window: Window, limits: Limits) -> Signal:
    if not columns:
        few = f"too few events for drift ({window.answered:,} of {limits.min_events:,})"
        return Signal("drift", None, few, {"largest_distance": math.nan, "smallest_q": math.nan})
    found = sorted((column for column in columns if column.found), key=lambda column: -column.distance)
    drifted = [column for column in found if column.distance >= limits.min_distance]
    metrics = {
        "drifted_columns": float(len(drifted)),
        "columns": float(len(columns)),
        "largest_distance": max(column.distance for column in columns),
        "smallest_q": min(column.q for column in columns),
    }
    # With few columns all are reported; a model of many channels would have hundreds of metrics.
    for column in columns if len(columns) <= 20 else drifted[:10]:
        metrics |= {f"{column.name}_distance": column.distance, f"{column.name}_q": column.q}
    said = [phrase for of in ("inputs", "predictions") if (phrase := _changed(of, drifted))]
    # The farthest find: where the level is 1 or more, it is in `drifted`.
    level = found[0].distance / limits.min_distance if found else 0.0
    return Signal("drift", level, ", ".join(said) or f"no drift in {window.answered:,} events", metrics)


def _changed(of: str, drifted: list[Column]) -> str:
    mine = [column for column in drifted if column.of == of]
    more = f"; and {len(mine) - 1} more" if len(mine) > 1 else ""
    return f"{of} drifted ({mine[0].phrase()}{more})" if mine else ""


def _damage(baseline: Baseline, window: Window, limits: Limits) -> Signal:
    n = len(window.right)
    metrics = {"labelled_events": float(n), "reference_accuracy": baseline.accuracy}
    if n < limits.min_labels:
        few = f"accuracy unknown ({n:,} labelled events of {limits.min_labels:,})"
        return Signal("damage", None, few, {**metrics, "accuracy": math.nan})
    found = wilson(int(window.right.sum()), n, limits.confidence)
    metrics |= {"accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high}
    # The upper end of the interval: the loss is at least that, at this confidence, so chance raises no alert.
    level = max(0.0, (baseline.accuracy - found.high) / limits.tolerance)
    said = f"accuracy {percent(found.value)} of {n:,} labelled, reference {percent(baseline.accuracy)}"
    return Signal("damage", level, said + (": damage" if level >= 1 else ""), metrics)


def _latency(window: Window, limits: Limits) -> Signal | None:
    known = window.latency_ms[np.isfinite(window.latency_ms)]
    if len(known) < max(1, limits.min_events):
        absent = {"p50_latency_ms": math.nan, "p99_latency_ms": math.nan}
        return Signal("latency", None, "", absent) if limits.p99_ms is not None else None
    half, most = (quantile(known, q, limits.confidence) for q in (0.5, 0.99))
    metrics = {"p50_latency_ms": half.value, "p99_latency_ms": most.value}
    if limits.p99_ms is None:
        return Signal("latency", 0.0, "", metrics)
    # The lower end, for the same reason.
    over = most.low >= limits.p99_ms
    said = f"p99 {number(most.value, 3)} ms" + (f", over the {number(limits.p99_ms, 3)} ms allowed" if over else "")
    return Signal("latency", max(0.0, most.low) / limits.p99_ms, said, metrics)


def _failures(window: Window, limits: Limits) -> Signal | None:
    n, bad = window.events, window.rejected + window.failed
    share = Interval(math.nan, 0.0, 1.0) if not n else wilson(bad, n, limits.confidence)
    metrics = {
        "rejected_share": window.rejected / n if n else math.nan,
        "failed_share": window.failed / n if n else math.nan,
    }
    if limits.max_failures is None:
        return Signal("failures", 0.0 if n else None, "", metrics)
    said = f"{percent(share.value)} of {n:,} requests rejected or failed" if bad else ""
    return Signal("failures", share.low / limits.max_failures if n >= limits.min_events else None, said, metrics)


def _no_data(window: Window, limits: Limits) -> Signal:
    lacking = window.events < limits.min_events
    said = f"no data ({window.events:,} events in the window, {limits.min_events:,} are needed)" if lacking else ""
    return Signal("no_data", float(lacking), said)


def percent(share: float) -> str:
    """Return a share in percent: 0.9876 as 98.8 %."""
    return text.percent(share, 1, unit=" %") if 0.99 < share < 1 else f"{100 * share:.3g} %"
