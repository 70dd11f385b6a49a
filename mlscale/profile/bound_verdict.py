"""Decide from timed rounds what the bottleneck of a run is, and how much a loader that costs nothing would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mlscale.profile.step_timers import StepTimes

ROUNDS = 5  # by chance alone, one in 32 would show a gain in each
MIN_GAIN = 1.05  # the least factor that counts: smaller ones are within the noise of a machine
_MIN_STRAGGLE = 0.1  # of the time: shorter waits for another rank are within the noise of a machine
_MIN_WAIT_SHARE = 0.05  # of the time: a shorter wait for data counts as none


@dataclass(frozen=True)
class Factor:
    """A factor by which one variant is faster than another, over interleaved rounds.

    Attributes:
        rounds: the factor of each round.
    """

    rounds: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median over the rounds."""
        # One round that another job slowed does not move it, as it would move a mean.
        return median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the range over the rounds, as a share of the median."""
        return (max(self.rounds) - min(self.rounds)) / 2 / self.value

    @property
    def proven(self) -> bool:
        """True if every round shows a gain, and the median is a gain that counts."""
        return len(self.rounds) >= ROUNDS and self.value >= MIN_GAIN and min(self.rounds) > 1


@dataclass(frozen=True)
class Straggler:
    """A rank that others wait for.

    Attributes:
        share: of the time of an epoch that the rank which waits most waits for others.
        part: the largest part of the rank's own time, and its share of that.
        bounds_run: no part of the time of the rank that waits is larger than the wait, but computing.
    """

    rank: int
    share: float
    part: tuple[str, float]
    bounds_run: bool = True


def find_straggler(shares: Sequence[Mapping[str, float]], waiting: str, computing: str) -> Straggler | None:
    """Return the rank that the others wait for; None where each waits in turn.

    Args:
        shares: of the time of an epoch by part, of each rank.
        waiting, computing: the parts that are a wait for other ranks, and computing.
    """
    waits = [parts.get(waiting, 0.0) for parts in shares]
    if len(waits) < 2 or max(waits) < _MIN_STRAGGLE or min(waits) > max(waits) / 2:
        return None
    longest, rank = max(waits), waits.index(min(waits))
    others = [share for part, share in shares[waits.index(longest)].items() if part not in (waiting, computing)]
    own = {part: share for part, share in shares[rank].items() if part != waiting}
    return Straggler(rank, longest, max(own.items(), key=lambda item: item[1]), longest >= max(others, default=0))


@dataclass(frozen=True)
class BoundVerdict:
    """The bottleneck of a run.

    Attributes:
        bound: "data" (it waits), "cores" (it hardly waits, but the loader takes cores from the step), "step" (no loader
            would help; `step_parts` finds the part of the step), or "unclear" (rounds contradict each other).
        headroom: the headroom, that is the factor of a loader that costs nothing, measured by replaying one batch.
        wait: share of the time that is spent waiting for data.
        between: share of the time between the last step of an epoch and the request for the next one's first batch.
        predicted: the headroom as the two timers predict it.
        real, replayed: seconds of a step, medians over the rounds.
        spread: of the real step over the rounds: half its range, as a share of the median.
        waited: seconds of a step that are spent waiting for data.
        steps: number of measured real steps.
    """

    bound: str
    headroom: Factor
    wait: float
    between: float
    predicted: float
    real: float
    replayed: float
    spread: float
    waited: float
    steps: int


def evaluate_rounds(rounds: Sequence[tuple[StepTimes, StepTimes]]) -> BoundVerdict:
    """Return the verdict of rounds, each with a real fit and one that replays a batch."""
    real = [times for times, _ in rounds]
    steps = [times.step for times in real]
    # Factors are taken within each round: both fits of a round had about the same load of the machine.
    headroom = Factor(tuple(times.step / replayed.step for times, replayed in rounds))
    wait = median(times.wait / times.step for times in real)
    return BoundVerdict(
        bound=_classify_bound(headroom, wait),
        headroom=headroom,
        wait=wait,
        between=median(times.between / times.step for times in real),
        predicted=median(times.predicted for times in real),
        real=median(steps),
        replayed=median(replayed.step for _, replayed in rounds),
        spread=(max(steps) - min(steps)) / 2 / median(steps),
        waited=median(times.wait for times in real),
        steps=sum(times.steps for times in real),
    )


def _classify_bound(headroom: Factor, wait: float) -> str:
    if headroom.proven:
        return "data" if wait >= _MIN_WAIT_SHARE else "cores"
    if headroom.value >= MIN_GAIN or wait >= 2 * _MIN_WAIT_SHARE:
        return "unclear"  # the median looks like a gain, but a round contradicts it
    return "step"


def format_headroom(ratio: float) -> str:
    """Return the gain of a loader that costs nothing: `1.62× the speed (measured)`, or that none could be measured."""
    # It can't be slower: a ratio below 1 shows how much the machine's speed varies.
    return f"{ratio:.2f}× the speed (measured)" if ratio >= 1 else "no measurable gain"
