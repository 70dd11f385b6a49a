"""One look at a window: the level of each rule relative to its limit, its metrics, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.monitor.baseline import Baseline
from mlscale.monitor.drift import ColumnDrift, DriftLimits, compare_columns, select_farthest_results
from mlscale.monitor.drift.column_drift import GROUP, QUALITY
from mlscale.monitor.event_window import EventWindow
from mlscale.monitor.score_change import compare_scores, format_rounded_percent
from mlscale.report import format_number
from mlscale.stats.intervals import (
    Interval,
    compute_quantile_interval,
    compute_wilson_interval,
)

RULES = {
    "drift": "inputs or predictions have changed; that alone is not a degradation",
    "degradation": "by its labels, the model is worse than it was",
    "latency": "answers are slow",
    "failures": "requests are rejected or fail",
    "no_data": "too few events for a conclusion",
}

# Of the false-discovery rate: drift with a lower q-value than this part of it is an incident at the first look. A look
# each minute is 1,440 chances a day, and windows of dependent events made an incident in each 1,000 clean looks.
_STRONG = 0.01
_DEPENDENT = 5  # events in the place of an independent one, from which on a large distance may be what is not shown


@dataclass(frozen=True)
class MonitorLimits:
    """The limits of the rules, and the data that they need.

    Attributes:
        fdr: of drift: the highest chance that a look detects drift where there is none.
        min_distance: of drift: smallest distance of a column that is worth an alert, 0 to 1; see
            `ColumnDrift.distance`. What is detected is reported, however small.
        min_events, min_labels: with fewer, the rules are undecided.
        tolerance: what the score may lose: of a share in points, 0 to 1; of any other score relative to its reference.
        confidence: of the intervals of the score, latency and failures, two-sided.
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
class RuleResult:
    """The result of one rule.

    Attributes:
        rule: one of `RULES`.
        level: relative to the limit, 1 or more is over it; None where there are too few data.
        sentence: the result in words.
        metrics: name_unit to value; NaN where it is not known.
        is_weak: chance alone brings about such a result in some of a few hundred looks: a second one must confirm it.
    """

    rule: str
    level: float | None
    sentence: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    is_weak: bool = False

    @property
    def is_over(self) -> bool:
        return self.level is not None and self.level >= 1


@dataclass(frozen=True)
class WindowCheck:
    """The results of all rules for one version in one window.

    Attributes:
        version: such as `resnet:v7`.
        results: of each rule that has a limit.
        columns: of drift; empty where there are too few events.
        events: the number of events in the window.
        times: of the answered events, datetime64[us], UTC; empty if not known.
        labelled_score: the name of the score that labels show; '' if none.
    """

    version: str
    results: tuple[RuleResult, ...]
    columns: tuple[ColumnDrift, ...] = field(repr=False)
    events: int
    times: NDArray[np.datetime64] = field(default_factory=lambda: np.zeros(0, "datetime64[us]"), repr=False)
    labelled_score: str = ""

    @property
    def newest(self) -> str:
        """The time of the latest answered event, ISO 8601, UTC without a zone; '' if not known."""
        return str(self.times[-1]) if len(self.times) else ""

    def is_new_since(self, time: str, share: float = 0.5) -> bool:
        """Return True if this share of the events or more came after a time of `newest`, or the times are not known."""
        if not time or not len(self.times):
            return True
        return int((self.times > np.datetime64(time)).sum()) >= share * len(self.times)

    def find_result(self, rule: str) -> RuleResult | None:
        return next((result for result in self.results if result.rule == rule), None)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of all rules, and for each rule 1 if it is over its limit, 0 if not, NaN if undecided."""
        values: dict[str, float] = {"events": self.events}
        for result in self.results:
            values[result.rule] = math.nan if result.level is None else float(result.is_over)
        for result in self.results:
            values |= result.metrics
        return values

    @property
    def sentence(self) -> str:
        """The results of all rules in one sentence."""
        no_data = self.find_result("no_data")
        # Without data the other rules are undecided, so their sentences would only repeat that.
        if no_data and no_data.sentence:
            phrases = [
                no_data.sentence,
                *(other.sentence for other in self.results if other.is_over and other is not no_data),
            ]
        else:
            phrases = [result.sentence for result in self.results if result.sentence]
        drifted, degradation = self.find_result("drift"), self.find_result("degradation")
        if self.labelled_score and drifted and drifted.is_over and degradation and degradation.level is None:
            phrases.append(f"labels would show whether {self.labelled_score} degraded")
        return f"{self.version}: {', '.join(phrases)}"


def check_rules(baseline: Baseline, window: EventWindow, limits: MonitorLimits) -> WindowCheck:
    """Check one window by all rules.

    Raises:
        MLScaleError: the events have none of the columns of the baseline.
    """
    enough = window.answered >= limits.min_events
    # Of documents; what others wrote into a log may be anything.
    if (lengths := window.columns.get("input.length")) is not None and lengths.dtype.kind == "f":
        baseline = baseline.match_lengths(lengths.astype(np.float64))
    columns = _compare_window(baseline, window, limits) if enough else ()
    results = [
        check_drift(columns, window.answered, limits, has_groups=GROUP in window.columns),
        _check_degradation(baseline, window, limits),
        _check_latency(window, limits),
        _check_failure_share(window, limits),
        _check_event_count(window, limits),
    ]
    labelled = baseline.score.display_name if baseline.score and baseline.task_type.needs_label else ""
    return WindowCheck(baseline.version, tuple(filter(None, results)), columns, window.events, window.times, labelled)


def _compare_window(baseline: Baseline, window: EventWindow, limits: MonitorLimits) -> tuple[ColumnDrift, ...]:
    known = {sketch.name for sketch in baseline.sketches}
    if not known & set(window.columns):
        raise MLScaleError(
            f"the events of {baseline.version} have none of the columns of its reference profile",
            where="events",
            why=f"they have {_list_names(window.columns)}; the profile has {_list_names(known)}",
            fix="events=<the folder that its server writes to>",
        )
    return compare_columns(
        baseline.sketches,
        window.columns,
        window.times,
        DriftLimits(limits.fdr, limits.min_distance),
        window.earlier,
        baseline.column_names,
    )


def _list_names(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:5]) or "none"


def check_drift(
    columns: tuple[ColumnDrift, ...], events: int, limits: MonitorLimits, *, has_groups: bool = False
) -> RuleResult:
    """Return the result of the rule 'drift'.

    Args:
        columns: of the window, compared with the reference; empty where there are too few events.
        events: answered ones of the window.
        limits: the limits.
        has_groups: the events have a group, such as their user.
    """
    if not columns:
        few = f"too few events for drift ({events:,} of {limits.min_events:,})"
        return RuleResult("drift", None, few, {"largest_distance": math.nan, "smallest_q": math.nan})
    detected = [column for column in columns if column.is_detected]
    over = [column for column in detected if column.distance >= limits.min_distance]
    held = [column for column in columns if column.may_be_cycle]
    metrics = {
        "drifted_columns": float(len({column.name for column in over})),
        "detected_columns": float(len({column.name for column in detected})),
        "cycle_or_drift_columns": float(len({column.name for column in held})),
        "columns": float(len({column.name for column in columns})),
        "largest_distance": max(column.distance for column in columns),
        "smallest_q": min(column.q for column in columns),
    }
    # With few columns all are reported; a model of many channels would have hundreds of metrics.
    are_all_listed = metrics["columns"] <= 20
    farthest = list(select_farthest_results(columns if are_all_listed else over).values())
    for column in farthest if are_all_listed else sorted(farthest, key=lambda column: -column.distance)[:10]:
        metrics[f"{column.metric_name}_distance"] = column.distance
        # The q-value is of the column, not of one test: the smallest one.
        metrics[f"{column.metric_name}_q"] = min(other.q for other in columns if other.name == column.name)
    # Of detected columns alone: a large distance of few events may be chance.
    level = max((column.distance for column in detected), default=0.0) / limits.min_distance
    is_weak = min((column.q for column in over), default=0.0) > limits.fdr * _STRONG
    sentence = _describe_drift(over, detected, held, events)
    # Without a group each event counts as a user of its own. Broken data is broken, whoever sent it.
    if not has_groups and any(column.kind not in QUALITY for column in over):
        sentence += ", whether a few users or a long memory caused it is unknown (events without a group)"
    dependent = [one for one in columns if one.kind == "distribution" and one.effective * _DEPENDENT < events]
    unsure = max(dependent, key=lambda column: column.distance, default=None)
    if unsure is not None and unsure.distance >= limits.min_distance and not over:
        sentence += (
            f", {unsure.label} at a distance of {unsure.distance:.2f} is undecided: by a memory or a cycle {events:,} "
            f"events are worth {unsure.effective:.0f}"
        )
    return RuleResult("drift", level, sentence, metrics, is_weak)


def _describe_drift(over: list[ColumnDrift], detected: list[ColumnDrift], held: list[ColumnDrift], events: int) -> str:
    """Return what an alert is worth, what was detected besides, and what may be a cycle, in words."""
    over, detected = _drop_repeats(over), _drop_repeats(detected)
    phrases = [_list_changes("data quality", [column for column in over if column.kind in QUALITY])]
    changed = [column for column in over if column.kind not in QUALITY]
    phrases += [
        _list_changes(f"{group} drifted", [column for column in changed if column.group == group])
        for group in ("inputs", "outputs")
    ]
    none = "drift undecided" if held else "no drift of single columns"
    phrases = list(filter(None, phrases)) or [f"{none} in {events:,} events"]
    small = [column for column in detected if column not in over]
    if small:
        phrases.append(_list_changes("detected, too small for an alert", small))
    if held:
        phrases.append(_list_changes("drift or a phase of a cycle, unknown before a week of events", held))
    return ", ".join(phrases)


def _drop_repeats(columns: list[ColumnDrift]) -> list[ColumnDrift]:
    """Return the results without shares of columns of which a category that is new or lost is the finding."""
    named = {column.name for column in columns if column.kind in ("new category", "lost class")}
    return [column for column in columns if column.kind != "distribution" or column.name not in named]


def _list_changes(what: str, columns: list[ColumnDrift]) -> str:
    ordered = sorted(columns, key=lambda column: -column.distance)
    more = f"; and {len(columns) - 1} more" if len(columns) > 1 else ""
    return f"{what} ({ordered[0].format_change()}{more})" if columns else ""


def _check_degradation(baseline: Baseline, window: EventWindow, limits: MonitorLimits) -> RuleResult | None:
    reference, n = baseline.score, len(window.scores)
    if reference is None:
        return None
    name, needs_label = reference.name, baseline.task_type.needs_label
    metrics = {"labelled_events": float(n), f"reference_{name}": reference.mean}
    # Data that is left out without a word would look like too few labels.
    other = f", {window.unscored:,} labels do not fit their predictions" if window.unscored else ""
    shown = reference.display_name
    if n < limits.min_labels:
        few = f"{shown} unknown ({n:,} {'labelled ' * needs_label}events of {limits.min_labels:,}{other})"
        return RuleResult("degradation", None, few, {**metrics, name: math.nan})
    change = compare_scores(reference, window.scores, limits.confidence, window.score_groups)
    metrics |= {name: change.mean.value, f"{name}_low": change.mean.low, f"{name}_high": change.mean.high}
    sentence = change.describe_change(n, "labelled" if needs_label else "events") + other
    if math.isnan(change.loss):
        return RuleResult("degradation", None, f"{sentence} (too few for a comparison)", metrics)
    # What is lost at the least, at this confidence, so chance raises no alert.
    level = max(0.0, change.loss / limits.tolerance)
    worse = ", surely worse, not surely by more than the tolerance" if level > 0 else ""
    return RuleResult("degradation", level, sentence + (": degradation" if level >= 1 else worse), metrics)


def _check_latency(window: EventWindow, limits: MonitorLimits) -> RuleResult | None:
    known = window.latency_ms[np.isfinite(window.latency_ms)]
    # The p99 of a few answers is the slowest of them.
    if len(known) < max(1, limits.min_events):
        absent = {"p50_latency_ms": math.nan, "p99_latency_ms": math.nan}
        return RuleResult("latency", None, "", absent) if limits.p99_ms is not None else None
    half, most = (compute_quantile_interval(known, q, limits.confidence) for q in (0.5, 0.99))
    metrics = {"p50_latency_ms": half.value, "p99_latency_ms": most.value}
    if limits.p99_ms is None:
        return RuleResult("latency", 0.0, "", metrics)
    # The lower end, for the same reason.
    over = most.low >= limits.p99_ms
    sentence = f"p99 {format_number(most.value, 3)} ms" + (
        f", over the {format_number(limits.p99_ms, 3)} ms allowed" if over else ""
    )
    return RuleResult("latency", max(0.0, most.low) / limits.p99_ms, sentence, metrics)


def _check_failure_share(window: EventWindow, limits: MonitorLimits) -> RuleResult | None:
    n, bad = window.events, window.rejected + window.failed
    share = Interval(math.nan, 0.0, 1.0) if not n else compute_wilson_interval(bad, n, limits.confidence)
    metrics = {
        "rejected_share": window.rejected / n if n else math.nan,
        "failed_share": window.failed / n if n else math.nan,
    }
    if limits.max_failures is None:
        return RuleResult("failures", 0.0 if n else None, "", metrics)
    sentence = f"{format_rounded_percent(share.value)} of {n:,} requests rejected or failed" if bad else ""
    return RuleResult(
        "failures", share.low / limits.max_failures if n >= limits.min_events else None, sentence, metrics
    )


def _check_event_count(window: EventWindow, limits: MonitorLimits) -> RuleResult:
    if window.events >= limits.min_events:
        return RuleResult("no_data", 0.0, "")
    where = "".join(f"; {count:,} are of {version}" for version, count in window.others.most_common(3))
    sentence = f"no data ({window.events:,} events in the window, {limits.min_events:,} are needed{where})"
    # Where other versions answer, the service is alive: a new champion has had no requests yet, which is no incident.
    alive = window.events + window.others.total() >= limits.min_events
    return RuleResult("no_data", None if alive else 1.0, sentence)
