"""Recognise dates and times that are written as texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MIN_SHARE = 0.95
"""Part of a column's texts that must be dates for the others to be mistakes."""
_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\.?)?(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?"
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY_NAME = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,? )?"
_DATES = (
    r"\d{4}-\d{1,2}(?:-\d{1,2})?|\d{4}-?W\d{2}(?:-?\d)?|\d{4}-\d{3}",  # ISO 8601: day, month, week, day of the year
    r"\d{4}([/.])\d{1,2}\1\d{1,2}",
    r"\d{1,2}([/.-])\d{1,2}\2(?:\d{4}|\d{2})",  # US with slashes, European with points
    rf"\d{{1,2}}[ -]{_MONTH}[ -]\d{{2,4}}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}|{_MONTH} \d{{4}}",
)
_DATE = re.compile(rf"{_DAY_NAME}(?:{'|'.join(_DATES)})(?:(?:T|,? ){_TIME})?|{_TIME}", re.IGNORECASE)


def are_mostly_dates(texts: Sequence[str | None]) -> bool:
    """Return True if nearly all texts that are present are dates, times, or both."""
    given = [text for text in texts if text is not None]
    # A look at the first ones decides for most columns of texts.
    if not any(_DATE.fullmatch(text.strip()) for text in given[:20]):
        return False
    return sum(_DATE.fullmatch(text.strip()) is not None for text in given) >= _MIN_SHARE * len(given)
