"""Reading the header `Server-Timing`."""

import pytest

from mlscale.loadtest.load_outcome import ServerTime, read_server_time


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("queue;dur=1.5, compute;dur=2, total;dur=4", ServerTime(4.0, 2.5, 2.0)),
        ("total;dur=4", ServerTime(4.0)),
        ('cache;desc="hit, or so";dur=0.5,app;dur=12.25', ServerTime(12.25)),
        ('Total ; desc="all" ; DUR="7"', ServerTime(7.0)),
        ("queue;dur=5, total;dur=4", ServerTime(4.0, 0.0)),
        ("miss", None),
        ("app;dur=x, ;;=,", None),
        ("", None),
    ],
)
def test_the_header(header: str, expected: ServerTime | None) -> None:
    assert read_server_time({"Server-Timing": header}) == expected


def test_without_the_header() -> None:
    assert read_server_time({}) is None
    assert read_server_time({"server-timing": "total;dur=1"}) == ServerTime(1.0, None)
