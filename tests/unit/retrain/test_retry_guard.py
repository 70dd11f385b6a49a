"""When the next challenger may be trained."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.commands.retrain.guarded_cycle import _refuse_if_early, describe_pause, find_pause
from mlscale.retrain.journal import RetrainingCycle

START = datetime.fromisoformat("2026-01-05T12:00:00+00:00")


def turns(*decisions: str) -> list[RetrainingCycle]:
    """One a day."""
    return [
        RetrainingCycle(
            "0" * 12,
            "m",
            "m:v1",
            "",
            (START + timedelta(days=day)).isoformat(),
            decision.removesuffix(" early"),
            window={} if decision in ("too few", "failed early") else {"samples": 300},
        )
        for day, decision in enumerate(decisions)
    ]


@pytest.mark.parametrize(
    ("decisions", "day", "hours"),
    [
        (["promoted"], 0, 24),
        (["rejected"], 0, 48),
        (["rejected", "rejected", "rejected"], 2, 24 * 8),
        (["rejected"] * 9, 8, 720),
        (["rejected"] * 2000, 1999, 720),
        (["rejected", "rejected", "promoted"], 2, 24),
        (["promoted", "rejected", "too few", "failed early", "interrupted"], 1, 48),
        (["promoted", "failed"], 1, 48),
        (["promoted", "overtaken"], 1, 48),
        (["promoted", "rejected", "failed", "overtaken", "interrupted"], 3, 24 * 8),
        (["rejected", "failed", "promoted"], 2, 24),
    ],
)
def test_pauses(decisions: list[str], day: int, hours: float) -> None:
    found = find_pause(turns(*decisions), cooldown_hours=24, factor=2, longest_hours=720)
    assert found is not None
    assert found.until == START + timedelta(days=day, hours=hours)


def test_nothing_stands_against_it_before_there_was_a_comparison() -> None:
    for before in ([], ["too few"], ["failed early", "interrupted"]):
        assert find_pause(turns(*before), cooldown_hours=24, factor=2, longest_hours=720) is None


def test_a_broken_sensor_costs_few_trainings() -> None:
    """80 days of drift, and of challengers that are no better."""
    trained: list[RetrainingCycle] = []
    for day in range(80):
        now = START + timedelta(days=day)
        pause = find_pause(trained, cooldown_hours=24, factor=2, longest_hours=720)
        if pause is None or now >= pause.until:
            trained.append(RetrainingCycle("0" * 12, "m", "m:v1", "", now.isoformat(), "rejected"))
    assert len(trained) == 6  # on days 0, 2, 6, 14, 30 and 60


def test_a_pause_names_the_cycle_that_it_is_from() -> None:
    cycles = turns("promoted", "rejected", "rejected", "too few", "failed early")
    pause = find_pause(cycles, cooldown_hours=24, factor=2, longest_hours=720)
    assert pause is not None
    assert pause.cycle is cycles[2]
    assert "after the cycle that ended on 2026-01-07 12:00 (rejected, 2 in a row did not promote)" in describe_pause(
        pause
    )


@pytest.mark.parametrize(("ended", "is_refused"), [(-1, True), (-100, False), (24 * 365, False)])
def test_a_cycle_of_a_clock_that_was_ahead_is_no_pause(ended: float, is_refused: bool) -> None:
    (cycle,) = turns("rejected")
    cycle = replace(cycle, ended=(datetime.now(UTC) + timedelta(hours=ended)).isoformat())
    journal: Any = SimpleNamespace(read_cycles=lambda: [cycle], path="journal")
    champion: Any = SimpleNamespace(ref="m:v1")
    cfg = OmegaConf.create({"force": False, "guard": {"cooldown_hours": 24.0, "factor": 2.0, "longest_hours": 720.0}})
    assert (_refuse_if_early(cfg, journal, champion) is not None) == is_refused
