"""Users are alike: what a few of them send is not drift, and what all of them send is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.events.store import EventStore
from mlscale.monitor.drift import ColumnDrift, DriftLimits, SeasonalReference, compare_columns
from mlscale.monitor.drift.column_drift import GROUP
from mlscale.monitor.event_columns import collect_columns
from mlscale.monitor.window_check import MonitorLimits, check_drift
from mlscale.reference.column_sketch import ColumnSketch, build_category_sketch, build_number_sketch
from tests.event_writing import build_subject

TIMES = np.zeros(0, "datetime64[us]")


def draw(users: int, n: int, seed: int, *, bursts: bool = False, own: float = 0.5) -> dict[str, Any]:
    """Four numbers and a category, half of whose variance is the user's own."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(users), n // users) if bursts else rng.integers(0, users, n)
    values = np.sqrt(own) * rng.normal(size=(users, 5))[groups] + np.sqrt(1 - own) * rng.normal(size=(n, 5))
    columns: dict[str, Any] = {f"input.c{number}": values[:, number] for number in range(4)}
    columns["input.kind"] = np.array(["a", "b", "c"], object)[np.searchsorted([-0.5, 0.5], values[:, 4])]
    return columns | {GROUP: np.array([f"u{group}" for group in groups], object)}


def sketch(seed: int) -> list[ColumnSketch]:
    columns = draw(10_000, 10_000, seed)
    return [
        build_category_sketch(name, "inputs", values.tolist(), is_ordered=False)
        if values.dtype == object
        else build_number_sketch(name, "inputs", values, is_ordered=False)
        for name, values in columns.items()
        if name != GROUP
    ]


def detect(sketches: list[ColumnSketch], columns: dict[str, Any], seasonal: Any = None) -> list[ColumnDrift]:
    return [found for found in compare_columns(sketches, columns, TIMES, DriftLimits(), seasonal) if found.is_detected]


@pytest.mark.parametrize("bursts", [False, True])
@pytest.mark.parametrize("users", [10, 20, 100])
def test_a_few_users_are_no_drift(users: int, bursts: bool) -> None:
    sketches = sketch(users)
    assert sum(bool(detect(sketches, draw(users, 1000, 100 + seed, bursts=bursts))) for seed in range(25)) <= 2


def test_without_groups_they_look_like_drift_and_the_sentence_names_the_cause() -> None:
    columns, sketches = draw(20, 1000, 1), sketch(1)
    del columns[GROUP]
    results = compare_columns(sketches, columns, TIMES, DriftLimits())
    cause = "whether a few users or a long memory caused it is unknown (events without a group)"
    assert cause in check_drift(results, 1000, MonitorLimits()).sentence
    assert cause not in check_drift(results, 1000, MonitorLimits(), has_groups=True).sentence
    # One group alone, such as the only client of a service, shows no more than none.
    alone = compare_columns(sketches, columns | {GROUP: np.array(["u"] * 1000, object)}, TIMES, DriftLimits())
    assert [result.p for result in alone] == [result.p for result in results]


def test_what_all_users_send_is_drift() -> None:
    columns = draw(100, 1000, 3)
    columns["input.c2"] = columns["input.c2"] + 1
    assert [found.name for found in detect(sketch(3), columns)] == ["input.c2"]


def test_one_user_of_twenty_is_no_problem_of_the_data() -> None:
    """All its values are absent, out of the range, or of a category of its own."""
    columns, sketches = draw(20, 1000, 4, own=0), sketch(4)
    is_one = columns[GROUP] == "u7"
    columns["input.c0"][is_one] = np.nan
    columns["input.c1"][is_one] = 99
    columns["input.kind"][is_one] = "own"
    assert detect(sketches, columns) == []
    some = np.arange(1000) % 20 == 7  # the same, of all users
    columns = draw(20, 1000, 4, own=0)
    columns["input.c0"][some] = np.nan
    columns["input.c1"][some] = 99
    columns["input.kind"][some] = "own"
    assert {found.kind for found in detect(sketches, columns)} >= {"missing", "range", "new category"}


def test_users_of_earlier_weeks_are_few_as_well() -> None:
    sketches = sketch(5)
    for seed in range(10):
        hours, week = draw(20, 2000, 600 + seed), draw(30, 5000, 700 + seed)
        assert detect(sketches, draw(20, 1000, 500 + seed), SeasonalReference(hours, week)) == []


def test_groups_are_written_and_read(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    for groups in (None, ["ann", None]):
        writer = store.open_writer("m")
        predictions: dict[str, Any] = {
            "predicted": ["a", "b"],
            "class": np.array([0, 1]),
            "confidence": np.array([0.9, 0.8]),
        }
        ids = ["1", "2"] if groups is None else ["3", "4"]
        writer.add_events(ids, subject=build_subject("m:v1"), predictions=predictions, groups=groups)
        writer.add_events([f"{id_}x" for id_ in ids], subject=build_subject("m:v1"), predictions=predictions)
        writer.close()
        seen = collect_columns(store.read("m"))
        assert (GROUP in seen) == (groups is not None)
    assert dict(zip(store.read("m").id, seen[GROUP], strict=True)) == dict.fromkeys(
        ["1", "2", "1x", "2x", "4", "3x", "4x"]
    ) | {"3": "ann"}
