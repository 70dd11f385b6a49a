"""Ticks of times are at whole units, few enough, within the range, and labelled so that no two read the same."""

from datetime import UTC, datetime

import pytest

from mlscale.report.svg import TimeAxis

BEGIN = datetime(2026, 1, 5, 9, 58, 30, tzinfo=UTC).timestamp()
DAY = 86_400.0


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (0, ["01-05 09:58", "01-05 09:59"]),
        (600, ["01-05 10:00", "01-05 10:05"]),
        (3 * 3600, ["01-05 10:00", "01-05 11:00", "01-05 12:00"]),
        (2 * DAY, ["01-05 12:00", "01-06 00:00", "01-06 12:00", "01-07 00:00"]),
        (4 * DAY, ["2026-01-06", "2026-01-07", "2026-01-08", "2026-01-09"]),
        (30 * DAY, ["2026-01-15", "2026-01-29"]),
    ],
)
def test_ticks_are_at_whole_units(seconds: float, labels: list[str]) -> None:
    axis = TimeAxis([BEGIN, BEGIN + seconds], 0, 100)
    assert [axis.format_tick(tick) for tick in axis.ticks] == labels


@pytest.mark.parametrize("seconds", [1, 90, 5e3, 7e4, 3e5, 2e6, 3e7, 3e8])
def test_there_are_ticks_and_not_too_many(seconds: float) -> None:
    axis = TimeAxis([BEGIN, BEGIN + seconds], 0, 100)
    assert 1 <= len(axis.ticks) <= 13
    assert all(axis.is_in_range(tick) for tick in axis.ticks)
    labels = [axis.format_tick(tick) for tick in axis.ticks]
    assert len(set(labels)) == len(labels)
