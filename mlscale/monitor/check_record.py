"""The record of one check: what the history of a model and its metrics for Prometheus are made of.

The checks of a monitor over time: one line each in a file next to its state, bounded, and never corrupt for long.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlscale.atomic_files import append_line, convert_to_json, write_text
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


SUFFIX = "-checks.jsonl"
_MOST = 5_000  # lines; about 3 MB
_QUIET = '"alerts": []'  # in the line of a check without alerts


@dataclass(frozen=True)
class CheckLog:
    """The file of a monitor's checks.

    Attributes:
        path: the file; see `locate_check_log`.
        most: lines that it may have.
    """

    path: Path
    most: int = _MOST

    def append_record(self, record: CheckRecord) -> None:
        """Append a check; it is on the disk when this returns. One process at a time: the state's lock.

        Raises:
            MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
        """
        append_line(self.path, _encode_record(record))
        lines = self._read_lines()
        if len(lines) > self.most:
            # Written aside and renamed: a process that is killed here leaves the file as it was.
            write_text(self.path, "".join(line + "\n" for line in thin_out_lines(lines)[-self.most :]))

    def read_records(self) -> list[CheckRecord]:
        """Return the checks, oldest first. Lines that are cut short are left out.

        Raises:
            MLScaleError: a line is corrupt in another way, or of a later format.
        """
        records = []
        for number, line in enumerate(self._read_lines(), 1):
            try:
                document = json.loads(line)
            except ValueError:  # a line that a power cut has cut short
                continue
            if isinstance(document, dict):
                records.append(CheckRecord.parse_document(document, f"{self.path}, line {number}"))
        return records

    def _read_lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            fix = f"chmod u+r {shlex.quote(str(self.path))}"
            raise MLScaleError(
                "can't read the checks of a monitor", where=str(self.path), why=str(error), fix=fix
            ) from error


def locate_check_log(state: Path) -> Path:
    """Return the path of the checks that belong to a state file."""
    return state.with_name(state.stem + SUFFIX)


def thin_out_lines(lines: list[str]) -> list[str]:
    """Return every second line of the older half, and the newer half.

    Repeated, the past becomes coarser the older it is, and its begin is kept. Checks with alerts are not left out.
    """
    half = len(lines) // 2
    return [line for number, line in enumerate(lines[:half]) if number % 2 == 0 or _QUIET not in line] + lines[half:]


def _encode_record(record: CheckRecord) -> str:
    return json.dumps(record.build_document(), ensure_ascii=False, allow_nan=False)
