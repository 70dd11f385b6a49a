"""How the numbers and the missing values of a table are written, in files and in raw rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class TableForm(NamedTuple):
    """How the values of a table are written.

    Attributes:
        missing: texts that stand for a missing value, besides the usual ones.
        thousands: the mark that divides thousands; None for none.
        encoding: of CSV files of the training data.
    """

    missing: tuple[str, ...] = ()
    thousands: str | None = None
    encoding: str = "utf-8"

    def clean_text(self, text: str | None) -> str | None:
        """Return a cell without the marks between the thousands of a number; None for a missing value."""
        if text is None or text in self.missing:
            return None
        is_grouped = self.thousands and re.fullmatch(format_grouped_numbers(self.thousands), text)
        return text.replace(self.thousands or "", "") if is_grouped else text

    def describe(self) -> dict[str, Any]:
        """Return what is not as usual in raw rows, as JSON values."""
        settings = {"missing": list(self.missing), "thousands": self.thousands}
        return {key: value for key, value in settings.items() if value}

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """Return the form of `describe`, among other settings."""
        return cls(tuple(settings.get("missing", ())), settings.get("thousands"))


USUAL_FORM = TableForm()


def format_grouped_numbers(mark: str) -> str:
    """Return the regular expression of numbers whose thousands a mark divides."""
    return rf"\s*[+-]?\d{{1,3}}({re.escape(mark)}\d{{3}})+([.,]\d+)?\s*"
