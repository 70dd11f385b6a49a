"""Reads times as other servers write them: ISO 8601, numbers since 1970 in any unit, or a format of `strptime`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

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
        ValueError: there is no such zone.
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
