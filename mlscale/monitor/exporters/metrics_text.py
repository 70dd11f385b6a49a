"""The metrics of a check for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mlscale.monitor.check_record import CheckRecord
from mlscale.monitor.drift import ColumnDrift, select_farthest_results

PREFIX = "mlscale_monitor"
_COLUMNS = 500  # series of columns: more would be a burden for Prometheus
_HELP = {
    "checks_total": "Checks so far.",
    "waiting_alerts": "Alerts that have not arrived yet.",
    "last_check_timestamp_seconds": "When the last check was made.",
    "newest_event_timestamp_seconds": "When the newest event was answered.",
    "window_events": "Events in the window of the check.",
    "labelled_events": "Events with a label in the window.",
    "drifted_columns": "Columns whose drift is large enough for an alert.",
    "detected_columns": "Columns in which drift was detected.",
    "latency_p50_seconds": "Median latency of answers.",
    "latency_p99_seconds": "99th percentile of the latency of answers.",
    "rejected_ratio": "Share of requests that were rejected.",
    "failed_ratio": "Share of requests that failed.",
    "score": "The task's metric by the labels that have come in.",
    "score_low": "Lower end of the metric's interval.",
    "score_high": "Upper end of the metric's interval.",
    "score_reference": "The task's metric when the model was exported.",
    "rule_level": "Level of a rule relative to its limit: 1 or more is over it.",
    "rule_firing": "1 while a rule has an incident, else 0.",
    "column_distance": "Distance of a column from its reference, 0 to 1.",
    "column_detected": "1 if drift was detected in a column, else 0.",
}

Labels = Mapping[str, str]


@dataclass
class CheckCollector(Collector):
    """Gives Prometheus's client the metrics of the last check."""

    families: Iterable[Metric] = ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        return self.families


def build_check_metrics(
    record: CheckRecord,
    columns: Sequence[ColumnDrift] = (),
    *,
    rules: Sequence[str] = (),
    checks: int = 0,
    waiting: int = 0,
    newest: datetime | None = None,
) -> list[Metric]:
    """Return the metrics of a check. What is not known has no series.

    Args:
        columns: all that were compared.
        rules: those that may become incidents.
        checks: the number of checks so far.
        waiting: alerts that have not arrived yet.
        newest: the time of the latest event.
    """
    watched = {"model": record.model, "watched": record.watched}
    labels = {**watched, "version": record.version}
    counts = {"checks_total": checks, "waiting_alerts": waiting}
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for name, shown, value in (
        *((name, watched, count) for name, count in counts.items()),
        *((name, labels, value) for name, value in _list_window_values(record, newest).items()),
        *((name, {**labels, **own}, value) for name, own, value in _iterate_series(record, columns, rules)),
    ):
        if value is not None:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = families.setdefault(name, kind(f"{PREFIX}_{name}", _HELP[name], labels=list(shown)))
            family.add_metric(list(shown.values()), value)
    return list(families.values())


def _list_window_values(record: CheckRecord, newest: datetime | None) -> dict[str, float | None]:
    metrics, score = record.metrics, record.score
    p50, p99 = (metrics.get(f"{name}_latency_ms") for name in ("p50", "p99"))
    return {
        "last_check_timestamp_seconds": datetime.fromisoformat(record.time).timestamp(),
        "newest_event_timestamp_seconds": newest.timestamp() if newest else None,
        "window_events": record.events,
        "labelled_events": score.labels if score else None,
        "drifted_columns": metrics.get("drifted_columns"),
        "detected_columns": metrics.get("detected_columns"),
        "latency_p50_seconds": None if p50 is None else p50 / 1000,
        "latency_p99_seconds": None if p99 is None else p99 / 1000,
        "rejected_ratio": metrics.get("rejected_share"),
        "failed_ratio": metrics.get("failed_share"),
    }


def _iterate_series(
    record: CheckRecord, columns: Sequence[ColumnDrift], rules: Sequence[str]
) -> Iterator[tuple[str, Labels, float | None]]:
    """Yield name, labels of its own and value of each series of the score, the rules and the columns."""
    if score := record.score:
        values = {"": score.value, "_low": score.low, "_high": score.high, "_reference": score.reference}
        yield from ((f"score{end}", {"metric": score.name}, value) for end, value in values.items())
    yield from (("rule_level", {"rule": rule}, level) for rule, level in record.levels.items())
    yield from (("rule_firing", {"rule": rule}, float(rule in record.firing)) for rule in rules)
    # A column is compared by several tests, and has one series: that of its largest distance.
    largest = select_farthest_results(columns)
    detected = {column.name for column in columns if column.is_detected}
    for name, column in sorted(largest.items(), key=lambda item: -item[1].distance)[:_COLUMNS]:
        yield "column_distance", {"column": name}, column.distance
        yield "column_detected", {"column": name}, float(name in detected)
