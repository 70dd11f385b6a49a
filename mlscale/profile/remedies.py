"""What may help against a bound, in the order in which it is tried. Nothing is advised that was not measured here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlscale.profile.bound_verdict import GAIN, Factor

MOST_WORKERS = 32
_TRIES = 3
_ALIKE = 0.97  # of the largest factor: what asks for less is preferred
_GROWS = 1.1  # by which twice the workers must be faster than half of them, for twice again to be tried


@dataclass(frozen=True)
class Setup:
    """What a run has set, as far as remedies go.

    Attributes:
        workers: threads or processes that load, per process of the run; None where the data has no such setting.
        workers_key: what sets it, such as `data.workers`.
        precision: Lightning's, such as "32-true".
        bf16: whether the device computes bfloat16.
        threads: CPU threads of one process.
        cores: that this process may use.
        busy: others take time from the cores.
        removable: group and name of the callback or logger that takes most of the time, where one does.
    """

    workers: int | None
    workers_key: str
    precision: str
    bf16: bool
    threads: int
    cores: int
    busy: bool
    removable: tuple[str, str] | None = None


@dataclass(frozen=True)
class Remedy:
    """One change.

    Attributes:
        typed: what a user types.
        workers, precision, threads: the value to set; None leaves it.
        without: group and name of what is left out.
        caution: what to look at before it is kept.
    """

    typed: str
    workers: int | None = None
    precision: str | None = None
    threads: int | None = None
    without: tuple[str, str] | None = None
    caution: str = ""


@dataclass(frozen=True)
class Tried:
    """A remedy and what it gave; no factor where it failed.

    Attributes:
        why: what it failed of, in words.
    """

    remedy: Remedy
    factor: Factor | None
    why: str = ""

    @property
    def proven(self) -> bool:
        return self.factor is not None and self.factor.proven

    def told(self) -> str:
        """`data.workers=4 0.98×`, with the range where it looks like a gain and a round says otherwise."""
        if self.factor is None:
            return f"{self.remedy.typed} failed: {self.why}"
        rounds, told = self.factor.rounds, f"{self.remedy.typed} {self.factor.value:.2f}×"
        return told if self.factor.value < GAIN or self.proven else f"{told}, {min(rounds):.2f} to {max(rounds):.2f}"


def to_try(bound: str, setup: Setup, tried: list[Tried]) -> Iterator[Remedy]:
    """Remedies in order. `tried` is filled by the caller while this goes on: what comes next depends on it."""
    if bound in ("data", "cores") and setup.workers is not None:
        yield from _workers(bound, setup, setup.workers, tried)
    if bound == "computing" and setup.precision == "32-true" and setup.bf16:
        yield Remedy("precision=bf16", precision="bf16-mixed", caution="compare the accuracy before you keep it")
    if setup.removable is not None:
        group, name = setup.removable
        yield Remedy(f"~{group}.{name}", without=setup.removable, caution="what it does is left out then")
    if bound in ("cores", "computing") and setup.threads > 1:
        yield Remedy("OMP_NUM_THREADS=1 (in the environment)", threads=1)  # small steps wait for each other's threads


def best(tried: list[Tried]) -> Tried | None:
    """The proven remedy that gives most, the first of those that give about as much; None where none is proven."""
    proven = [(each.factor.value, each) for each in tried if each.factor is not None and each.proven]
    most = max((value for value, _ in proven), default=0.0)
    return next((each for value, each in proven if value >= _ALIKE * most), None)


def _workers(bound: str, setup: Setup, now: int, tried: list[Tried]) -> Iterator[Remedy]:
    """More of them, twice as many while that helps; fewer, where they take cores from the step."""
    if bound == "cores":
        fewer = sorted({now // 2, 1, 0} - {now}, reverse=True)
        for count in [count for count in fewer if count < now]:
            yield _with_workers(setup, count)
        return
    count, reached = max(2, setup.cores) if now < max(2, setup.cores) else 2 * now, 1.0
    for _ in range(_TRIES):
        if count > MOST_WORKERS:
            return
        yield _with_workers(setup, count)
        factor = tried[-1].factor if tried else None
        if factor is None or factor.value < reached * _GROWS:
            return
        count, reached = 2 * count, factor.value


def _with_workers(setup: Setup, count: int) -> Remedy:
    return Remedy(f"{setup.workers_key}={count}", workers=count)
