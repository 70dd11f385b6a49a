"""From timed rounds to one verdict: what bounds the run, and by how much a loader that costs nothing would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from mlscale.profile.step_timers import Parts

ROUNDS = 5  # by chance alone, one in 32 would show a gain in each
GAIN = 1.05  # the least factor that counts: below it, a machine's moods are as large
_SHARE = 0.05  # of the time: who waits less for data does not wait


@dataclass(frozen=True)
class Factor:
    """How much faster one thing is than another, over interleaved rounds.

    Attributes:
        rounds: the factor of each round.
    """

    rounds: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median."""
        return median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the range over the rounds, as a share of the median."""
        return (max(self.rounds) - min(self.rounds)) / 2 / self.value

    @property
    def proven(self) -> bool:
        """A gain in every one of the rounds, and in the middle one a gain that counts."""
        return len(self.rounds) >= ROUNDS and self.value >= GAIN and min(self.rounds) > 1


@dataclass(frozen=True)
class Verdict:
    """What bounds a run.

    Attributes:
        bound: "data" (it waits), "cores" (it hardly waits, but the loader takes cores from the step), "step" (no loader
            would help: which part of the step it is, other timers tell), or "unclear" (rounds contradict each other).
        headspace: how much faster a loader that costs nothing would be, measured by replaying one batch.
        wait: share of the time that is spent waiting for data.
        between: share of the time between the last step of an epoch and the next one's first batch being asked for.
        predicted: the headspace as the two timers predict it.
        real, replayed: seconds of a step, medians over the rounds.
        spread: of the real step over the rounds: half its range, as a share of the median.
        waited: seconds of a step that are spent waiting for data.
        steps: measured, real ones.
    """

    bound: str
    headspace: Factor
    wait: float
    between: float
    predicted: float
    real: float
    replayed: float
    spread: float
    waited: float
    steps: int


def judge(rounds: Sequence[tuple[Parts, Parts]]) -> Verdict:
    """The verdict of rounds, each with a real fit and one that replays a batch."""
    real = [each for each, _ in rounds]
    steps = [each.step for each in real]
    headspace = Factor(tuple(each.step / replayed.step for each, replayed in rounds))
    wait = median(each.wait / each.step for each in real)
    return Verdict(
        bound=_bound(headspace, wait),
        headspace=headspace,
        wait=wait,
        between=median(each.between / each.step for each in real),
        predicted=median(each.predicted for each in real),
        real=median(steps),
        replayed=median(replayed.step for _, replayed in rounds),
        spread=(max(steps) - min(steps)) / 2 / median(steps),
        waited=median(each.wait for each in real),
        steps=sum(each.steps for each in real),
    )


def _bound(headspace: Factor, wait: float) -> str:
    if headspace.proven:
        return "data" if wait >= _SHARE else "cores"
    if headspace.value >= GAIN or wait >= 2 * _SHARE:
        return "unclear"  # it looks like a gain, and a round says otherwise
    return "step"
