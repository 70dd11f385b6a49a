"""When an incident begins and ends, and how seldom noise makes one."""

import numpy as np
import pytest

from mlscale.monitor.alert_rule import AlertPolicy, RuleState, advance_rule


def reported(levels: list[float | None], patience: AlertPolicy) -> list[tuple[int, str]]:
    """The looks at which something was told, and what."""
    state = RuleState()
    changes: list[tuple[int, str]] = []
    for index, level in enumerate(levels):
        state, change = advance_rule(state, level, patience, f"t{index}")
        if change:
            changes.append((index, change))
    return changes


BASIC = AlertPolicy(looks=1, hysteresis=0.8, keep=2, cooldown=0)


@pytest.mark.parametrize(
    ("levels", "patience", "changes"),
    [
        ([0.5, 0.99, 0], BASIC, []),
        ([0, 1.0, 5, 5, 5], BASIC, [(1, "firing")]),
        ([2, 0, 0, 0], BASIC, [(0, "firing"), (2, "resolved")]),
        ([2, 0, 2, 0, 0], BASIC, [(0, "firing"), (4, "resolved")]),
        ([2, 0.9, 0.9, 0.9, 0.79, 0.79], BASIC, [(0, "firing"), (5, "resolved")]),  # hysteresis
        ([2, 0.8, 0.8, 0.8], BASIC, [(0, "firing")]),
        ([2, 2, 0, 2, 2, 2], AlertPolicy(looks=3), [(5, "firing")]),  # in a row
        ([2, 0, 2, 2, 2, 2], AlertPolicy(keep=1, cooldown=3), [(0, "firing"), (1, "resolved"), (5, "firing")]),
        ([2, 0, 0, 0, 0, 2], AlertPolicy(keep=1, cooldown=3), [(0, "firing"), (1, "resolved"), (5, "firing")]),
        ([2, None, None, None, 0, None, 0], BASIC, [(0, "firing"), (6, "resolved")]),  # nothing known, nothing changes
        ([2, None, 2], AlertPolicy(looks=2), [(2, "firing")]),
        ([None, None], BASIC, []),
        ([float("nan")] * 3, BASIC, []),
    ],
)
def test_what_is_reported(levels: list[float | None], patience: AlertPolicy, changes: list[tuple[int, str]]) -> None:
    assert reported(levels, patience) == changes


def test_since_is_the_first_look_over_the_limit() -> None:
    state = RuleState()
    for index in range(3):
        state, _ = advance_rule(state, 2.0, AlertPolicy(looks=3), f"t{index}")
    assert (state.phase, state.since) == ("firing", "t0")


def test_noise_makes_few_incidents_and_a_step_makes_one() -> None:
    """Noise of .03 around .08, and a step of .06 that lasts 100 looks, against a limit of .12."""
    generator = np.random.default_rng(0)
    patience = AlertPolicy(looks=3, hysteresis=0.8, keep=5, cooldown=100)
    raw = AlertPolicy(looks=1, hysteresis=1.0, keep=1, cooldown=0)
    noise = (0.08 + 0.03 * generator.normal(size=(100, 600))) / 0.12
    firing = {name: [] for name in ("patient", "raw", "step")}  # type: dict[str, list[int]]
    for row in noise:
        for name, how in (("patient", patience), ("raw", raw)):
            firing[name].append(sum(change == "firing" for _, change in reported(row.tolist(), how)))
        row[200:300] += 0.06 / 0.12
        during = [index for index, change in reported(row[200:300].tolist(), patience) if change == "firing"]
        firing["step"].append(len(during))
    assert np.mean(firing["raw"]) > 30
    assert np.mean(firing["patient"]) < 0.6
    assert 0.9 <= np.mean(firing["step"]) <= 1.05


def test_a_cooldown_goes_by_looks_below_the_limit_too() -> None:
    state, patience = RuleState(quiet=3), AlertPolicy(cooldown=3)
    seen = []
    for level in (0.0, 0.0, 2.0, 0.0, 0.0):
        state, _ = advance_rule(state, level, patience, "now")
        seen.append((state.phase, state.quiet))
    assert seen == [("clear", 2), ("clear", 1), ("pending", 0), ("clear", 0), ("clear", 0)]
