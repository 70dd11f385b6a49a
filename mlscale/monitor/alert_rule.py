"""One rule, one alert: how looks become an incident, and when it is over. A state machine that counts looks.

    clear ──over──▶ pending ──over for `looks` looks──▶ firing ──below for `keep` looks──▶ clear, quiet for `cooldown`

A value near its limit crosses it again and again, and chance crosses it now and then. So an incident begins after
several looks, ends well below the limit (`hysteresis`) and after several looks, and is not told again at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["clear", "pending", "firing"]
Change = Literal["firing", "resolved"]


@dataclass(frozen=True)
class Patience:
    """How many looks it takes.

    Attributes:
        looks: in a row over the limit until it is an incident.
        hysteresis: an incident goes on as long as the level is at least this, 0 to 1; the limit is 1.
        keep: looks in a row below that until an incident is over.
        cooldown: looks after an incident in which no other one of the same rule begins.
    """

    looks: int = 1
    hysteresis: float = 0.8
    keep: int = 3
    cooldown: int = 3


@dataclass(frozen=True)
class State:
    """Where a rule stands.

    Attributes:
        phase: clear, pending or firing.
        count: looks in a row: over the limit, or below it while firing.
        quiet: looks that are left of the cooldown.
        since: when the incident began, or the first look of what may become one; '' while clear.
    """

    phase: Phase = "clear"
    count: int = 0
    quiet: int = 0
    since: str = ""


def step(state: State, level: float | None, patience: Patience, now: str) -> tuple[State, Change | None]:
    """The state after one more look, and what is to be told.

    Args:
        level: 1 and more is too much; None where nothing is known: then the rule stays where it is.
        now: the time of the look.
    """
    if level is None:
        return state, None
    if state.phase == "firing":
        below = 0 if level >= patience.hysteresis else state.count + 1
        if below < patience.keep:
            return replace(state, count=below), None
        return State(quiet=patience.cooldown), "resolved"
    quiet = max(0, state.quiet - 1)
    if not level >= 1:
        return State(quiet=quiet), None
    count, since = state.count + 1, state.since or now
    if count >= patience.looks and not state.quiet:
        return State("firing", since=since), "firing"
    return State("pending", count, quiet, since), None
