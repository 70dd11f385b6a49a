"""The meaning of a log's columns: parsed from a mapping, which reads values and times of another server.

Finds a value in a record by a dotted path: `data.inputs.0.age`, through objects, lists, and texts that hold them; a
`*` in it stands for the number of each sample of a request.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from mlscale.config.names.suggest import find_nearest
from mlscale.errors import MLScaleError, raise_all

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
        # As ISO 8601, which allows dates without dashes, milliseconds of today would be of the year 1796.
        if self.format in UNITS or (self.format == "auto" and text.isdecimal() and len(text) != len("20260105")):
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


ENTRIES = ("time", "prediction", "id", "version", "confidence", "probabilities", "label", "latency", "outcome", "group")
LATENCY_UNITS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "ns": 1e-6}  # in milliseconds
OUTCOMES = ("ok", "rejected", "failed")
_COMMON = ("field", "constant", "scale", "values")
_EXTRA = {
    "time": ("format", "zone"),
    "latency": ("unit",),
    "outcome": OUTCOMES,
    "prediction": ("threshold", "positive"),
}
_LARGEST_FILE = 1 << 20
_STAR = re.compile(r"\.\*(?:\.|$)")


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

    def is_in(self, record: Mapping[str, Any]) -> bool:
        """Return True if a record has the path, be it without a value."""
        return self.path is None or has_path([record], self.path)

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
        positive: the name of the class whose probability the number is; '' without a threshold.
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


def parse_number_text(value: object, scale: float = 1.0) -> float:
    """Return a number times `scale`; a text that ends in a percent sign is a share already: 99.9% is 0.999.

    Raises:
        ValueError: it is not a number.
    """
    text = str(value).strip()
    is_percent = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None
    # The sign has the scale: a `scale: 0.01` for the same column must not divide twice.
    return number / 100 if is_percent else number * scale


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
        raise MLScaleError(
            "can't read the mapping",
            where=str(path),
            why=" ".join(str(getattr(error, "strerror", None) or error).split()),
            fix="mapping=<a YAML file>, at least with time: <column> and prediction: <column>; docs/monitor.md has one",
        ) from error
    return parse_mapping(document, str(path))


def parse_mapping(document: object, where: str) -> EventMapping:
    """Return the mapping of a document.

    Raises:
        MLScaleError: all its problems at once.
    """
    given = document if isinstance(document, Mapping) else {}
    raise_all([MLScaleError(what, where=where, fix=fix) for what, fix in _find_problems(given)])
    entries = {name: given[name] for name in ENTRIES if given.get(name) is not None}
    # The short form of an entry is the name of a column; a number is one by its place in a list.
    parts = {name: entry if isinstance(entry, Mapping) else {} for name, entry in entries.items()}
    time, prediction = parts.get("time", {}), parts.get("prediction", {})
    outcomes: dict[str, str] = {}
    for outcome in OUTCOMES:
        texts = parts.get("outcome", {}).get(outcome, [])
        outcomes |= {str(text): outcome for text in (texts if isinstance(texts, list) else [texts])}
    return EventMapping(
        {name: _build_field(entry) for name, entry in entries.items()},
        {str(name): _build_field(entry) for name, entry in (given.get("inputs") or {}).items()},
        TimeParser(str(time.get("format", "auto")), find_time_zone(str(time.get("zone", "UTC")))),
        outcomes,
        prediction.get("threshold"),
        "" if prediction.get("positive") is None else str(prediction["positive"]),
    )


def _build_field(entry: object) -> MappedField:
    if not isinstance(entry, Mapping):
        return MappedField(str(entry))
    path = entry.get("field")
    # YAML reads an unquoted 1 as a number: values are compared as texts.
    values = {str(key): value for key, value in (entry.get("values") or {}).items()}
    scale = entry.get("scale", 1.0) * LATENCY_UNITS[str(entry.get("unit", "ms"))]  # a unit is of the latency only
    return MappedField(None if path is None else str(path), entry.get("constant"), float(scale), values)


def _find_problems(document: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a mapping, and the fix of each."""
    yield from _find_unknown_keys(document, (*ENTRIES, "inputs"))
    if "time" not in document:
        yield "the mapping has no 'time'", "time: <column>"
    if not {"prediction", "probabilities"} & set(document):
        yield "the mapping has no 'prediction'", "prediction: <column>"
    inputs = document.get("inputs") or {}
    if not isinstance(inputs, Mapping):
        yield "'inputs' has no names", "inputs: {age: <column>}"
        inputs = {}
    entries = {name: document[name] for name in ENTRIES if name in document}
    for name, entry in {**entries, **{f"inputs.{name}": entry for name, entry in inputs.items()}}.items():
        if isinstance(entry, Mapping):
            yield from _find_entry_problems(name, entry)


def _find_entry_problems(name: str, entry: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    yield from _find_unknown_keys(entry, (*_COMMON, *_EXTRA.get(name, ())), f"{name}.")
    if ("field" in entry) == ("constant" in entry):
        yield f"'{name}' needs a field or a constant", f"{name}: {{field: <column>}}"
    if not _is_number(entry.get("scale", 1.0)):
        yield f"'{name}.scale' is not a number", "scale: 0.001"
    if not isinstance(entry.get("values") or {}, Mapping):
        yield f"'{name}.values' has no names", "values: {'1': spam, '0': ham}"
    if (unit := str(entry.get("unit", "ms"))) not in LATENCY_UNITS:
        yield f"{name}.unit is '{unit}', not one of {', '.join(LATENCY_UNITS)}", "unit: ms"
    threshold, positive = entry.get("threshold"), entry.get("positive")
    if threshold is not None and not _is_number(threshold):
        yield f"{name}.threshold is not a number", "threshold: 0.5"
    if positive is not None and threshold is None:
        yield f"{name}.positive has no threshold", "threshold: 0.5"
    # A format of `strptime` has a percent sign, and a misspelt unit has none.
    form = str(entry.get("format", "auto"))
    if form not in ("auto", "iso", *UNITS) and "%" not in form:
        fix = "format: iso, s, ms, us, ns, or one of strptime such as '%d.%m.%Y %H:%M:%S'"
        yield f"{name}.format is '{form}'", fix
    try:
        find_time_zone(str(entry.get("zone", "UTC")))
    except ValueError as error:
        yield f"{name}.zone: {error}", "zone: Europe/Berlin"


def _find_unknown_keys(entry: Mapping[Any, Any], known: Sequence[str], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key in entry:
        if key not in known:
            yield f"unknown key '{prefix}{key}'", f"{find_nearest(str(key), known) or known[0]}: …"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class AbsentFieldError(KeyError):
    """A record has no value at a path."""


def find_value(record: object, path: str) -> Any:
    """Return the value at a path.

    A name that has dots itself is found, too: the longest name that is there counts. A text that holds JSON, or values
    separated by commas, is read on the way.

    Raises:
        AbsentFieldError: there is none.
    """
    if isinstance(record, Mapping):
        if path in record:
            return record[path]
        # From the longest name to the shortest.
        end = len(path)
        while (end := path.rfind(".", 0, end)) > 0:
            if path[:end] in record:
                return find_value(record[path[:end]], path[end + 1 :])
        raise AbsentFieldError(path)
    first, _, rest = path.partition(".")
    if isinstance(record, list | tuple):
        # Negative numbers count from the end, as in Python.
        if not first.lstrip("-").isdigit() or not -len(record) <= int(first) < len(record):
            raise AbsentFieldError(path)
        value = record[int(first)]
        return find_value(value, rest) if rest else value
    if isinstance(record, str):
        return find_value(_decode_text(record), path)
    raise AbsentFieldError(path)


def has_path(records: Sequence[Mapping[str, Any]], path: str) -> bool:
    """Return True if any of the records has a value, or none, at a path."""
    for record in records:
        with contextlib.suppress(AbsentFieldError):
            find_value(record, path)
            return True
    return False


def split_request(record: Mapping[str, Any], paths: Sequence[str]) -> list[Mapping[str, Any]] | None:
    """Return a record for each sample of a request, with its value at each path that has a `*`; None without such.

    Samples are the items of a list, or the lines of a text.

    Raises:
        ValueError: the lists differ in length.
    """
    columns: dict[str, list[Any]] = {}
    for path in filter(_STAR.search, paths):
        start, rest = _STAR.split(path, 1)
        with contextlib.suppress(AbsentFieldError):
            columns[path] = [(item, rest) for item in _list_samples(find_value(record, start))]
    if not columns:
        return None
    counts = {len(items): path for path, items in columns.items()}
    if len(counts) > 1:
        raise ValueError(" and ".join(f"{path} has {count:,} samples" for count, path in counts.items()))
    samples: list[Mapping[str, Any]] = [dict(record) for _ in range(next(iter(counts)))]
    for path, items in columns.items():
        for sample, (item, rest) in zip(samples, items, strict=True):
            with contextlib.suppress(AbsentFieldError):
                sample[path] = find_value(item, rest) if rest else item  # type: ignore[index]
    return samples


def _list_samples(value: object) -> Sequence[Any]:
    if isinstance(value, str):
        value = _decode_text(value) if value.lstrip().startswith("[") else value.splitlines()
    if not isinstance(value, list | tuple):
        raise AbsentFieldError
    return value


@lru_cache(256)  # a record has many values in one text
def _decode_text(text: str) -> Any:
    """Return what a text holds: JSON, else values separated by commas."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return [text]
    return [item.strip() for item in text.split(",")]
