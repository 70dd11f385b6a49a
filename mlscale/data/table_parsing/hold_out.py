"""Hold out rows of a table for validation: by content, by group, by time, or by class."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from mlscale.data.table_parsing.columns import DataTable, Numbers, Texts, format_texts
from mlscale.errors import MLScaleError

_TIMES = "ISO 8601, such as 2026-11-29 or 2026-11-29T08:00:00+01:00, or seconds since 1970"


@dataclass(frozen=True)
class HoldOut:
    """The rule by which rows are held out.

    A hash decides, so that a row stays on its side whatever other rows there are; but for `time_on` and `stratify`,
    which depend on all rows.

    Args:
        fraction: of the rows, of the groups, or of each class.
        group_on: a column; rows that have the same value in it stay on one side.
        time_on: a column of times; the latest rows are held out.
        stratify: of each class the same fraction.
    """

    fraction: float
    group_on: str | None = None
    time_on: str | None = None
    stratify: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that decide; what a model is given must not have them."""
        return tuple(name for name in (self.group_on, self.time_on) if name is not None)

    @property
    def is_by_content(self) -> bool:
        """Return True if a hash of each row alone decides, whatever its class."""
        return not (self.columns or self.stratify)

    def check_settings(self, *, has_val: bool) -> None:
        """Raise for settings that contradict each other, or have no effect.

        Args:
            has_val: a validation split is given, so that nothing is held out.

        Raises:
            MLScaleError: they do.
        """
        # Asked before anything is read, for the data may be large.
        chosen = [name for name in ("group_on", "time_on", "stratify") if getattr(self, name)]
        # Splits that are given are checked for shared groups and for overlapping times, both.
        if len(chosen) > 1 and not has_val:
            raise MLScaleError(
                f"rows can't be held out by {' and by '.join(f'data.{name}' for name in chosen)} at once",
                where=f"data.{chosen[1]}",
                why="one of them decides on which side a row falls",
                fix=f"data.{chosen[1]}={'false' if chosen[1] == 'stratify' else 'null'}",
            )
        if has_val and self.stratify:
            raise MLScaleError(
                "data.stratify has no effect with data.val",
                where="data.stratify",
                why="nothing is held out of data.train",
                fix="data.stratify=false\ndata.val=null",
            )

    def choose_rows(self, table: DataTable, contents: Sequence[str], labels: Texts | None) -> NDArray[np.bool_]:
        """Return True for each row that is held out, (n,).

        Args:
            table: the rows.
            contents: of each row; equal ones stay on one side, except by group or by time.
            labels: the class of each row, to stratify; None where rows have none.

        Raises:
            MLScaleError: the fraction is not between 0 and 1, a side is empty, or a row has no time.
        """
        held = self._choose(table, contents, labels) if 0 < self.fraction < 1 else np.zeros(len(table), np.bool_)
        if not len(held) or held.all() or not held.any():
            raise self._build_empty_error(table)
        return held

    def _build_empty_error(self, table: DataTable) -> MLScaleError:
        together = "equal rows stay" if self.is_by_content else f"rows of one {self.time_on or self.group_on} stay"
        return MLScaleError(
            f"{self.fraction:g} of {len(table)} rows leave one side empty",
            where="data.val_fraction",
            why=f"{together} together",
            fix="data.val=val.csv" + "\ndata.val_fraction=0.2, or another part" * (self.fraction != 0.2),
        )

    def _choose(self, table: DataTable, contents: Sequence[str], labels: Texts | None) -> NDArray[np.bool_]:
        if self.time_on is not None:
            return self._choose_latest(read_times(table, self.time_on))
        if self.stratify:
            return self._choose_by_class(contents, labels)
        names = contents if self.group_on is None else read_groups(table, self.group_on, contents)
        return np.array([hash_to_fraction(name) < self.fraction for name in names], np.bool_)

    def _choose_latest(self, times: Numbers) -> NDArray[np.bool_]:
        # Rows of the same time stay together, so it may be a few more.
        count = max(1, round(self.fraction * len(times)))
        latest: NDArray[np.bool_] = times >= np.sort(times)[len(times) - count]
        return latest

    def _choose_by_class(self, contents: Sequence[str], labels: Texts | None) -> NDArray[np.bool_]:
        if labels is None:
            raise MLScaleError(
                "rows without classes can't be stratified",
                where="data.stratify",
                why="the target is a number",
                fix="data.stratify=false",
            )
        # A row without a class counts as one of a class of its own: it is refused, or left out, later.
        by_class: dict[str | None, list[int]] = defaultdict(list)
        for row, label in enumerate(labels):
            by_class[label].append(row)
        held = np.zeros(len(contents), np.bool_)
        chosen: set[str] = set()
        for rows in by_class.values():
            # At least one on each side, where there are two.
            count = min(max(1, round(self.fraction * len(rows))), len(rows) - 1)
            ordered = sorted(rows, key=lambda row: hash_to_fraction(contents[row]))
            chosen.update(contents[row] for row in ordered[:count])
        # By content: an equal row, of whatever class, stays on the same side.
        for row, content in enumerate(contents):
            held[row] = content in chosen
        return held


def hash_to_fraction(name: str) -> float:
    """Return a number from 0 to below 1 that depends on the name alone."""
    # The first 64 bits of the hash are uniform in [0, 2^64).
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def check_fraction(fraction: float, *, where: str = "data.val_fraction") -> float:
    """Return a part that is held out.

    Raises:
        MLScaleError: it is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise MLScaleError(
            f"data.val_fraction is {fraction}", where=where, why="it is between 0 and 1", fix="data.val_fraction=0.1"
        )
    return fraction


def read_groups(table: DataTable, name: str, contents: Sequence[str]) -> list[str]:
    """Return the group of each row; a row without one is a group of its own.

    Raises:
        MLScaleError: the table has no such column.
    """
    # As texts: a column of numbers and one of texts name the same group alike.
    groups = format_texts(table.get_column(name, where="data.group_on"))
    return [content if group is None else f"group {group}" for group, content in zip(groups, contents, strict=True)]


def read_times(table: DataTable, name: str) -> Numbers:
    """Return the time of each row, in seconds since 1970, float64 (n,).

    Raises:
        MLScaleError: the table has no such column, or a row has no time that can be read.
    """
    column = table.get_column(name, where="data.time_on")
    times = column if isinstance(column, np.ndarray) else np.array([parse_time(text) for text in column], np.float64)
    if (unknown := np.flatnonzero(~np.isfinite(times))).size:
        row = int(unknown[0])
        raise MLScaleError(
            f"{unknown.size:,} of {len(times):,} rows have no time that can be read",
            where="data.time_on",
            why=f"{table.keys[row]} has {column[row]!r} as {name}; a time is {_TIMES}",
            fix="data.time_on=<another column>, or write the times so",
        )
    return times


def parse_time(text: str | None) -> float:
    """Return seconds since 1970; NaN for what is not a time. Without a time zone it is one of UTC."""
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return float("nan")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
