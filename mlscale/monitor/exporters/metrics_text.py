"""The metrics of a check in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from mlscale.atomic_files import encode_text, make_folders, write_bytes
from mlscale.errors import MLScaleError
from mlscale.monitor.check_record import CheckRecord
from mlscale.monitor.drift import ColumnDrift, select_farthest_results

PREFIX = "mlscale_monitor"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COLUMNS = 500  # series of columns: more would be a burden for Prometheus
_READABLE_FILE = 0o644  # node_exporter runs as a user of its own; the umask still applies

Labels = Mapping[str, str]


@dataclass(frozen=True)
class MetricFamily:
    """One metric with its series.

    Attributes:
        name: without the prefix.
        kind: gauge or counter.
        help: one line.
        samples: labels and value of each series.
    """

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Sequence[tuple[Labels, float]]

    def format_lines(self) -> Iterator[str]:
        """Yield the lines of the text format; none without series."""
        if not self.samples:
            return
        name = f"{PREFIX}_{self.name}"
        yield f"# HELP {name} {self.help}"
        yield f"# TYPE {name} {self.kind}"
        for labels, value in self.samples:
            pairs = ",".join(f'{key}="{escape_label(text)}"' for key, text in labels.items())
            yield f"{name}{{{pairs}}} {value:.10g}"


def render_check_metrics(
    record: CheckRecord,
    columns: Sequence[ColumnDrift] = (),
    *,
    rules: Sequence[str] = (),
    checks: int = 0,
    waiting: int = 0,
    newest: datetime | None = None,
) -> str:
    """Return the metrics of a check as text. What is not known has no series.

    Args:
        columns: all that were compared.
        rules: those that may become incidents.
        checks: the number of checks so far.
        waiting: alerts that have not arrived yet.
        newest: the time of the latest event.
    """
    watched = {"model": record.model, "watched": record.watched}
    labels = {**watched, "version": record.version}
    families = [
        MetricFamily("checks_total", "counter", "Checks so far.", [(watched, checks)]),
        MetricFamily("waiting_alerts", "gauge", "Alerts that have not arrived yet.", [(watched, waiting)]),
        *_build_window_families(record, labels, newest),
        *_build_score_families(record, labels),
        *_build_rule_families(record, labels, rules),
        *_build_column_families(columns, labels),
    ]
    return "".join(line + "\n" for family in families for line in family.format_lines())


def write_textfile(path: Path, text: str) -> None:
    """Write metrics for node_exporter's textfile collector, whole or not at all, readable by other users.

    Raises:
        MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
    """
    try:
        make_folders(path.parent)
        write_bytes(path, encode_text(text), mode=_READABLE_FILE)
    except MLScaleError as error:
        fix = "prometheus.textfile=<a file in a folder that you may write to>"
        raise MLScaleError(error.what, where=error.where, why=error.why, fix=fix, exit=error.exit) from error


def escape_label(text: str) -> str:
    """Return a label's value with the escapes of the text format, which PromQL has, too."""
    # The backslash first, or it would escape those of the others again.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _build_window_families(record: CheckRecord, labels: Labels, newest: datetime | None) -> Iterator[MetricFamily]:
    time = datetime.fromisoformat(record.time).timestamp()
    metrics = record.metrics
    p50, p99 = (_divide_known(metrics.get(f"{name}_latency_ms"), 1000) for name in ("p50", "p99"))
    labelled = record.score.labels if record.score else None
    for name, help_, value in (
        ("last_check_timestamp_seconds", "When the last check was made.", time),
        (
            "newest_event_timestamp_seconds",
            "When the newest event was answered.",
            newest.timestamp() if newest else None,
        ),
        ("window_events", "Events in the window of the check.", record.events),
        ("labelled_events", "Events with a label in the window.", labelled),
        ("drifted_columns", "Columns whose drift is large enough for an alert.", metrics.get("drifted_columns")),
        ("detected_columns", "Columns in which drift was detected.", metrics.get("detected_columns")),
        ("latency_p50_seconds", "Median latency of answers.", p50),
        ("latency_p99_seconds", "99th percentile of the latency of answers.", p99),
        ("rejected_ratio", "Share of requests that were rejected.", metrics.get("rejected_share")),
        ("failed_ratio", "Share of requests that failed.", metrics.get("failed_share")),
    ):
        yield MetricFamily(name, "gauge", help_, [(labels, value)] if value is not None else [])


def _build_score_families(record: CheckRecord, labels: Labels) -> Iterator[MetricFamily]:
    score = record.score
    if score is None:
        return
    named = {**labels, "metric": score.name}
    for name, help_, value in (
        ("score", "The task's metric by the labels that have come in.", score.value),
        ("score_low", "Lower end of the metric's interval.", score.low),
        ("score_high", "Upper end of the metric's interval.", score.high),
        ("score_reference", "The task's metric when the model was exported.", score.reference),
    ):
        yield MetricFamily(name, "gauge", help_, [(named, value)] if value is not None else [])


def _build_rule_families(record: CheckRecord, labels: Labels, rules: Sequence[str]) -> Iterator[MetricFamily]:
    levels = [({**labels, "rule": rule}, level) for rule, level in record.levels.items() if level is not None]
    yield MetricFamily("rule_level", "gauge", "Level of a rule relative to its limit: 1 or more is over it.", levels)
    firing = [({**labels, "rule": rule}, float(rule in record.firing)) for rule in rules]
    yield MetricFamily("rule_firing", "gauge", "1 while a rule has an incident, else 0.", firing)


def _build_column_families(columns: Sequence[ColumnDrift], labels: Labels) -> Iterator[MetricFamily]:
    # A column is compared by several tests, and has one series: that of its largest distance.
    largest = select_farthest_results(columns)
    shown = sorted(largest.items(), key=lambda item: -item[1].distance)[:_COLUMNS]
    detected = {column.name for column in columns if column.is_detected}
    distances = [({**labels, "column": name}, column.distance) for name, column in shown]
    flags = [({**labels, "column": name}, float(name in detected)) for name, _ in shown]
    yield MetricFamily("column_distance", "gauge", "Distance of a column from its reference, 0 to 1.", distances)
    yield MetricFamily("column_detected", "gauge", "1 if drift was detected in a column, else 0.", flags)


def _divide_known(value: float | None, by: float) -> float | None:
    return None if value is None else value / by
