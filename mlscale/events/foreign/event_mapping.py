"""The meaning of a log's columns: parsed from a mapping, which reads values and times of another server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from mlscale.config.names.suggest import find_nearest, format_override
from mlscale.errors import MLScaleError, raise_all
from mlscale.events.foreign.field_path import AbsentFieldError, find_value
from mlscale.events.foreign.number_text import parse_number_text

UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Units of numbers, in microseconds."""
# A number from here on is of that unit: seconds reach 1e11 in the year 5138, and milliseconds of 1973 are above it.
_UNIT_STARTS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (0.0, "s"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = 253_402_300_799 * 1e6  # the end of the year 9999, µs


@dataclass(frozen=True)
class TimeParser:
    """Turns values into microseconds since 1970, UTC.

    Attributes:
        format: auto (ISO 8601, or a number whose size shows its unit), iso, s, ms, us, ns, or one of `strptime`.
        zone: of times without one.
    """

    format: str = "auto"
    zone: tzinfo = UTC

    def parse_time(self, value: object) -> int:
        """Return microseconds since 1970.

        Raises:
            ValueError: it is not a time in that format.
        """
        if isinstance(value, datetime):
            return self._convert_moment(value)
        if isinstance(value, bool) or value is None:
            raise ValueError(f"{value!r} is not a time")
        if isinstance(value, int | float):
            return self._convert_number(float(value))
        text = str(value).strip()
        if self.format in UNITS:
            return self._convert_number(_parse_number(text))
        if self.format in ("auto", "iso"):
            try:
                return self._convert_moment(datetime.fromisoformat(text))
            except ValueError:
                if self.format == "iso":
                    raise ValueError(f"{_shorten(text)} is not a time in ISO 8601") from None
            return self._convert_number(_parse_number(text))
        try:
            return self._convert_moment(datetime.strptime(text, self.format))
        except ValueError:
            raise ValueError(f"{_shorten(text)} is not a time of the form {self.format}") from None

    def _convert_moment(self, moment: datetime) -> int:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=self.zone)
        return (aware - _EPOCH) // timedelta(microseconds=1)

    def _convert_number(self, number: float) -> int:
        if not math.isfinite(number):
            raise ValueError(f"{number:g} is not a time")
        unit = self.format if self.format in UNITS else next(u for start, u in _UNIT_STARTS if abs(number) >= start)
        microseconds = number * UNITS[unit]
        if not 0 <= microseconds <= _LARGEST:
            raise ValueError(f"{number:g} is not a time since 1970")
        return round(microseconds)


def find_time_zone(name: str) -> tzinfo:
    """Return a time zone by its name, such as Europe/Berlin.

    Raises:
        ValueError: the zone is unknown.
    """
    if name.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"'{name}' is not a time zone") from None


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{_shorten(text)} is not a time") from None


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


ENTRIES = ("time", "prediction", "id", "version", "confidence", "probabilities", "label", "latency", "outcome")
LATENCY_UNITS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "ns": 1e-6}  # in milliseconds
OUTCOMES = ("ok", "rejected", "failed")
_COMMON = ("field", "constant", "scale", "values")
_EXTRA = {
    "time": ("format", "zone"),
    "latency": ("unit",),
    "outcome": OUTCOMES,
    "prediction": ("threshold", "positive"),
}
_GAP = "???"  # what a guess leaves open
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class MappedField:
    """Where a value of an event comes from.

    Attributes:
        path: in the record; None for a constant.
        constant: the same value for all.
        scale: multiplies numbers.
        values: replaces values, by their text.
    """

    path: str | None
    constant: Any = None
    scale: float = 1.0
    values: Mapping[str, Any] = field(default_factory=dict)

    def read_value(self, record: Mapping[str, Any]) -> Any:
        """Return the value of a record; None where it has none.

        Raises:
            ValueError: it should be scaled, and is not a number.
        """
        if self.path is None:
            return self.constant
        try:
            value = find_value(record, self.path)
        except AbsentFieldError:
            return None
        if self.values:
            value = self.values.get(str(value), value)
        if self.scale == 1.0 or value in (None, ""):
            return value
        try:
            return parse_number_text(value, self.scale)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


@dataclass(frozen=True)
class EventMapping:
    """The mapping of all that an event has.

    Attributes:
        fields: by what they are, of `ENTRIES`.
        inputs: by the names of the model's columns; of a text its only input is `text`.
        times: reads the time.
        outcomes: the texts of each outcome; empty where all were answered.
        threshold: from which number on the positive class is predicted; None where the prediction is not a number.
        positive: the name of the class whose probability the number is; '' where the field's name shows it.
    """

    fields: Mapping[str, MappedField]
    inputs: Mapping[str, MappedField]
    times: TimeParser = field(default_factory=TimeParser)
    outcomes: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    positive: str = ""

    def list_paths(self) -> dict[str, str]:
        """Return the path of each entry that has one, by its key in the file."""
        named = {**self.fields, **{f"inputs.{name}": entry for name, entry in self.inputs.items()}}
        return {name: entry.path for name, entry in named.items() if entry.path is not None}


def read_mapping(path: Path) -> EventMapping:
    """Return the mapping of a YAML file.

    Raises:
        MLScaleError: it can't be read, or has problems: all of them at once.
    """
    import yaml

    try:
        # A log that was named by mistake may be larger than memory.
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("it is larger than a mapping")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        others = sorted(entry.name for entry in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        best = find_nearest(path.name, others) or (others[0] if others else None)
        raise MLScaleError(
            "can't read the mapping",
            where=str(path),
            why=" ".join(str(getattr(error, "strerror", None) or error).split())
            + (f"; there are: {', '.join(others[:10])}" if others else ""),
            fix=format_override("mapping", str(path.with_name(best)))
            if best
            else "mapping=guess, which writes one that fits the columns",
        ) from error
    return parse_mapping(document, str(path))


def parse_mapping(document: object, where: str) -> EventMapping:
    """Return the mapping of a document.

    Raises:
        MLScaleError: all its problems at once.
    """
    if not isinstance(document, Mapping):
        document = {}
    problems: list[MLScaleError] = []
    for name in document:
        if name not in (*ENTRIES, "inputs"):
            best = find_nearest(str(name), (*ENTRIES, "inputs"))
            problems.append(_make_problem(f"unknown key '{name}'", where, f"{best or 'label'}: <column>"))
    for name, others in (("time", ()), ("prediction", ("probabilities",))):
        if not {name, *others} & set(document):
            problems.append(_make_problem(f"the mapping has no '{name}'", where, f"{name}: <column>"))
    fields: dict[str, MappedField] = {}
    for name in ENTRIES:
        if document.get(name) is not None:
            fields[name] = _parse_field(name, document[name], _EXTRA.get(name, ()), where, problems)
    given = document.get("inputs")
    if given is not None and not isinstance(given, Mapping):
        problems.append(_make_problem("'inputs' has no names", where, "inputs: {age: <column>}"))
    inputs = {
        str(name): _parse_field(f"inputs.{name}", entry, (), where, problems)
        for name, entry in (given.items() if isinstance(given, Mapping) else ())
    }
    times = _parse_times(document.get("time"), where, problems)
    outcomes = dict(_parse_outcomes(document.get("outcome"), where, problems))
    prediction = document.get("prediction")
    threshold = prediction.get("threshold") if isinstance(prediction, Mapping) else None
    if threshold is not None and not _is_number(threshold):
        problems.append(_make_problem("prediction.threshold is not a number", where, "threshold: 0.5"))
    positive = prediction.get("positive") if isinstance(prediction, Mapping) else None
    if positive is not None and threshold is None:
        problems.append(_make_problem("prediction.positive has no threshold", where, "threshold: 0.5"))
    problems += _find_gaps(document, where)
    raise_all(problems)
    return EventMapping(fields, inputs, times, outcomes, threshold, "" if positive is None else str(positive))


def _find_gaps(document: Mapping[Any, object], where: str) -> Iterator[MLScaleError]:
    """Yield a problem for each place of a guessed mapping that is not filled in."""
    for name, entry in document.items():
        parts = entry if isinstance(entry, Mapping) else {"field": entry}
        if _GAP in (parts.get("field"), parts.get("format")):
            yield _make_problem(f"'{name}' is not filled in", where, f"{name}: <column>")
        values = parts.get("values")
        open_values = (
            [str(text) for text, value in values.items() if value == _GAP] if isinstance(values, Mapping) else []
        )
        if open_values:
            fix = f"{name}: {{field: …, values: {{'{open_values[0]}': <class>}}}}"
            yield _make_problem(f"'{name}.values' has no class for {', '.join(open_values)}", where, fix)


def _parse_field(
    name: str, entry: object, extra: tuple[str, ...], where: str, problems: list[MLScaleError]
) -> MappedField:
    # The short form is the name of a column; a number is one by its place in a list.
    if not isinstance(entry, Mapping):
        return MappedField(str(entry))
    known = (*_COMMON, *extra)
    for key in entry:
        if key not in known:
            best = find_nearest(str(key), known)
            problems.append(_make_problem(f"unknown key '{name}.{key}'", where, f"{best or 'field'}: …"))
    if ("field" in entry) == ("constant" in entry):
        problems.append(_make_problem(f"'{name}' needs a field or a constant", where, f"{name}: {{field: <column>}}"))
    scale = entry.get("scale", 1.0)
    if name == "latency":
        unit = str(entry.get("unit", "ms"))
        if unit not in LATENCY_UNITS:
            units = ", ".join(LATENCY_UNITS)
            problems.append(_make_problem(f"latency.unit is '{unit}', not one of {units}", where, "unit: ms"))
        scale = scale * LATENCY_UNITS.get(unit, 1.0) if _is_number(scale) else scale
    if not _is_number(scale):
        problems.append(_make_problem(f"'{name}.scale' is not a number", where, "scale: 0.001"))
        scale = 1.0
    values = entry.get("values") or {}
    if not isinstance(values, Mapping):
        problems.append(_make_problem(f"'{name}.values' has no names", where, "values: {'1': spam, '0': ham}"))
        values = {}
    path = entry.get("field")
    # YAML reads an unquoted 1 as a number: values are compared as texts.
    texts = {str(key): value for key, value in values.items()}
    return MappedField(None if path is None else str(path), entry.get("constant"), float(scale), texts)


def _parse_times(entry: object, where: str, problems: list[MLScaleError]) -> TimeParser:
    if not isinstance(entry, Mapping):
        return TimeParser()
    try:
        zone = find_time_zone(str(entry.get("zone", "UTC")))
    except ValueError as error:
        problems.append(_make_problem(f"time.zone: {error}", where, "zone: Europe/Berlin"))
        return TimeParser()
    form = str(entry.get("format", "auto"))
    # A format of `strptime` has a percent sign, and a misspelt unit has none.
    if form not in ("auto", "iso", "s", "ms", "us", "ns") and "%" not in form:
        fix = "format: iso, s, ms, us, ns, or one of strptime such as '%d.%m.%Y %H:%M:%S'"
        problems.append(_make_problem(f"time.format is '{form}'", where, fix))
    return TimeParser(form, zone)


def _parse_outcomes(entry: object, where: str, problems: list[MLScaleError]) -> Iterator[tuple[str, str]]:
    for outcome in OUTCOMES if isinstance(entry, Mapping) else ():
        texts = entry.get(outcome, []) if isinstance(entry, Mapping) else []
        for text in texts if isinstance(texts, list) else [texts]:
            yield str(text), outcome


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _make_problem(what: str, where: str, fix: str) -> MLScaleError:
    return MLScaleError(what, where=where, fix=fix)
