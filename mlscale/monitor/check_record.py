"""The record of one check: what the history of a model and its metrics for Prometheus are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mlscale.atomic_files import convert_to_json
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.monitor.drift import ColumnDrift
from mlscale.monitor.window_check import RuleResult, WindowCheck

_COLUMNS = 20  # of which a record has the names: those that changed most
_REFERENCE = "reference_"  # the name of a score's metric at the time of the export begins with it
_SUMMARY = ("drifted_columns", "detected_columns", "cycle_or_drift_columns", "columns", "largest_distance")


@dataclass(frozen=True)
class Score:
    """The task's metric by the labels that have come in.

    Attributes:
        name: such as accuracy.
        value, low, high: the metric and its interval; None where there are too few labels.
        reference: the metric when the model was exported.
        labels: the number of labelled events.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    reference: float | None
    labels: int


@dataclass(frozen=True)
class CheckRecord:
    """The result of one check, bounded in size; the contract 'monitor_check'.

    Attributes:
        time: ISO 8601 with its time zone.
        watched: the reference as the user named it, `resnet@champion`.
        model, version: `resnet`, and `resnet:v7` that was checked.
        events: in the window.
        levels: of each rule, relative to its limit; None where it is undecided.
        firing: rules with an incident.
        alerts: of incidents that began or ended: rule, status, version, since, sentence.
        columns: in which drift was detected, the largest distance first: name, change, distance, alert.
        score: None where the check has no score.
        metrics: name_unit to value; None where it is not known.
    """

    time: str
    watched: str
    model: str
    version: str
    events: int
    levels: Mapping[str, float | None] = field(default_factory=dict)
    firing: tuple[str, ...] = ()
    alerts: tuple[Mapping[str, str], ...] = ()
    columns: tuple[Mapping[str, Any], ...] = ()
    score: Score | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)

    def build_document(self) -> dict[str, Any]:
        """Return the document of the contract 'monitor_check'."""
        document: dict[str, Any] = convert_to_json({"format": get_format_tag("monitor_check"), **asdict(self)})
        return document

    @classmethod
    def parse_document(cls, document: Mapping[str, Any], where: str) -> CheckRecord:
        """Return the record of a document.

        Raises:
            MLScaleError: it is corrupt, or of a later format.
        """
        expect_format("monitor_check", document, where)
        try:
            score = document["score"]
            values: dict[str, Any] = {name: document[name] for name in cls.__dataclass_fields__}
            values |= {name: tuple(values[name]) for name in ("firing", "alerts", "columns")}
            values["score"] = Score(**{name: score[name] for name in Score.__dataclass_fields__}) if score else None
            return cls(**values)
        except (KeyError, TypeError) as error:
            fix = f"restore it from a copy of {where}"
            raise MLScaleError("the record of a check is corrupt", where=where, why=repr(error), fix=fix) from error


def build_check_record(
    check: WindowCheck,
    *,
    watched: str,
    model: str,
    time: str,
    firing: Sequence[str],
    alerts: Sequence[Mapping[str, Any]],
) -> CheckRecord:
    """Return the record of a check.

    Args:
        firing: rules with an incident.
        alerts: documents of the contract 'alert' of this check.
    """
    fields = ("rule", "status", "version", "since", "sentence")
    results = {result.rule: result for result in check.results}
    metrics = {
        name: value
        for rule in ("latency", "failures")
        if rule in results
        for name, value in results[rule].metrics.items()
    }
    if drift := results.get("drift"):
        metrics |= {name: drift.metrics[name] for name in _SUMMARY if name in drift.metrics}
    # JSON has no NaN: None, also in memory, so that a record is equal to what is read back.
    return CheckRecord(
        time=time,
        watched=watched,
        model=model,
        version=check.version,
        events=check.events,
        levels={name: _drop_nonfinite(result.level) for name, result in results.items()},
        firing=tuple(firing),
        alerts=tuple({name: str(alert[name]) for name in fields} for alert in alerts),
        columns=_list_detected_columns(check.columns, drift),
        score=_extract_score(results.get("degradation")),
        metrics={name: _drop_nonfinite(value) for name, value in metrics.items()},
    )


def _list_detected_columns(columns: Sequence[ColumnDrift], drift: RuleResult | None) -> tuple[Mapping[str, Any], ...]:
    detected = sorted((column for column in columns if column.is_detected), key=lambda column: -column.distance)
    # The level is the largest distance relative to the limit, so it shows which of the columns are over that.
    largest = detected[0].distance if detected else 0.0
    limit = largest / drift.level if drift and drift.level else 0.0
    return tuple(
        {
            "name": column.name,
            "change": column.format_change(),
            "distance": _drop_nonfinite(column.distance),
            "alert": bool(column.distance >= limit * (1 - 1e-9)),
        }
        for column in detected[:_COLUMNS]
    )


def _extract_score(result: RuleResult | None) -> Score | None:
    """Return the score of the degradation rule, whose metrics have the name of the task's metric."""
    if result is None:
        return None
    name = next((key.removeprefix(_REFERENCE) for key in result.metrics if key.startswith(_REFERENCE)), None)
    if name is None:
        return None
    value, low, high = (_drop_nonfinite(result.metrics.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
    reference = _drop_nonfinite(result.metrics[_REFERENCE + name])
    return Score(name, value, low, high, reference, int(result.metrics.get("labelled_events", 0)))


def _drop_nonfinite(value: float | None) -> float | None:
    converted: float | None = convert_to_json(None if value is None else float(value))
    return converted
