"""One rule, one alert: a state machine that counts checks ('looks') and decides when an incident begins and ends.

    clear ──over──▶ pending ──over for `looks` looks──▶ firing ──below for `keep` looks──▶ clear, quiet for `cooldown`

A value near its limit crosses it again and again, and sometimes by chance. So an incident begins after several looks,
ends well below the limit (`hysteresis`) and after several looks, and is not reported again at once (`cooldown`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["clear", "pending", "firing"]
Change = Literal["firing", "resolved"]


@dataclass(frozen=True)
class AlertPolicy:
    """The number of looks until an incident begins, ends, and may begin again.

    Attributes:
        looks: consecutive looks over the limit until an incident begins.
        hysteresis: an incident continues as long as the level is at least this, 0 to 1; the limit is 1.
        keep: consecutive looks below that until an incident ends.
        cooldown: looks after an incident in which no other one of the same rule begins.
    """

    looks: int = 1
    hysteresis: float = 0.8
    keep: int = 3
    cooldown: int = 3


@dataclass(frozen=True)
class RuleState:
    """The state of a rule.

    Attributes:
        phase: clear, pending or firing.
        count: consecutive looks over the limit, or below `hysteresis` while firing.
        quiet: the remaining looks of the cooldown.
        since: the time at which the incident began, or the first look over the limit while pending; '' while clear.
        began_as: the name of the rule when the incident began, where that was another one; '' otherwise.
    """

    phase: Phase = "clear"
    count: int = 0
    quiet: int = 0
    since: str = ""
    began_as: str = ""


def advance_rule(
    state: RuleState, level: float | None, patience: AlertPolicy, now: str
) -> tuple[RuleState, Change | None]:
    """Return the state after one more look, and the change to report.

    Args:
        level: 1 or more is over the limit; None where it is not known: then the state stays as it is.
        now: the time of the look.
    """
    # Unknown is neither over nor below: missing data must not end an incident.
    if level is None:
        return state, None
    if state.phase == "firing":
        # A look above the hysteresis restarts the count: only consecutive looks below it end an incident.
        below = 0 if level >= patience.hysteresis else state.count + 1
        if below < patience.keep:
            return replace(state, count=below), None
        return RuleState(quiet=patience.cooldown), "resolved"
    quiet = max(0, state.quiet - 1)
    # `not >=`: NaN is not over the limit.
    if not level >= 1:
        return RuleState(quiet=quiet), None
    count, since = state.count + 1, state.since or now
    # The old `quiet`: the look that ends the cooldown is still part of it.
    if count >= patience.looks and not state.quiet:
        return RuleState("firing", since=since), "firing"
    return RuleState("pending", count, quiet, since), None
