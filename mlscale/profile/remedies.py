"""List the remedies for a bottleneck, in the order of trial. Only what was measured on this machine is advised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlscale.profile.bound_verdict import MIN_GAIN, Factor

MAX_WORKERS = 32
_MAX_TRIES = 3  # numbers of workers that are tried
_EQUAL_SHARE = 0.97  # of the largest factor: remedies above it count as equal, and the first one is preferred
_MIN_GROWTH = 1.1  # factor by which twice the workers must be faster, for twice again to be tried


@dataclass(frozen=True)
class RunSetup:
    """The settings of a run that remedies may change.

    Attributes:
        workers: threads or processes that load, per process of the run; None where the data has no such setting.
        workers_key: its key, such as `data.workers`.
        precision: Lightning's, such as "32-true".
        bf16: true if the device computes bfloat16.
        threads: CPU threads of one process.
        cores: number of cores that this process may use.
        busy: true if other processes use the cores.
        has_python: true if a user's own Python code works on samples in this process.
        removable: group and name of the callback or logger that takes most of the time; None if it is another part.
        images: true if samples are images, whose memory layout matters.
    """

    workers: int | None
    workers_key: str
    precision: str
    bf16: bool
    threads: int
    cores: int
    busy: bool
    has_python: bool
    removable: tuple[str, str] | None = None
    images: bool = False


@dataclass(frozen=True)
class Remedy:
    """One change of a run's settings.

    Attributes:
        typed: the argument that a user types.
        workers, executor, precision, memory_format, threads: the value to set; None leaves it.
        without: group and name of the callback or logger to leave out.
        caution: the check to make before it is kept.
    """

    typed: str
    workers: int | None = None
    executor: str | None = None
    precision: str | None = None
    memory_format: str | None = None
    threads: int | None = None
    without: tuple[str, str] | None = None
    caution: str = ""


@dataclass(frozen=True)
class RemedyTrial:
    """A remedy and its factor; None if it failed.

    Attributes:
        why: the reason of the failure, in words.
    """

    remedy: Remedy
    factor: Factor | None
    why: str = ""

    @property
    def proven(self) -> bool:
        return self.factor is not None and self.factor.proven

    def format_outcome(self) -> str:
        """Return text such as `data.workers=4 0.98×`; with the range, if a round contradicts the median's gain."""
        if self.factor is None:
            return f"{self.remedy.typed} failed: {self.why}"
        rounds, outcome = self.factor.rounds, f"{self.remedy.typed} {self.factor.value:.2f}×"
        return (
            outcome
            if self.factor.value < MIN_GAIN or self.proven
            else f"{outcome}, {min(rounds):.2f} to {max(rounds):.2f}"
        )


def propose_remedies(bound: str, setup: RunSetup, tried: list[RemedyTrial]) -> Iterator[Remedy]:
    """Yield remedies in order. The caller adds each outcome to `tried` before the next one, which depends on it."""
    if bound == "data" and setup.has_python:
        yield Remedy("data.executor=process", executor="process")
    # A dataset of a user's own is loaded by this process alone.
    if bound in ("data", "cores") and setup.workers is not None and (setup.workers or not setup.has_python):
        yield from _propose_workers(bound, setup, setup.workers, tried)
    if bound == "computing" and setup.precision == "32-true" and setup.bf16:
        caution = "compare the accuracy before you keep it"
        yield Remedy("precision=bf16", precision="bf16-mixed", caution=caution)
        if setup.images:
            layout = "channels_last"
            typed = f"precision=bf16 precision.memory_format={layout}"
            yield Remedy(typed, precision="bf16-mixed", memory_format=layout, caution=caution)
    if setup.removable is not None:
        group, name = setup.removable
        yield Remedy(f"~{group}.{name}", without=setup.removable, caution="what it does is left out then")
    if bound in ("cores", "computing") and setup.threads > 1:
        # Small steps spend more time on synchronising threads than they gain by them.
        yield Remedy("OMP_NUM_THREADS=1 (in the environment)", threads=1)


def select_best_remedy(tried: list[RemedyTrial]) -> RemedyTrial | None:
    """Return the proven remedy with the largest gain, the first of about equal ones; None if none is proven."""
    proven = [(trial.factor.value, trial) for trial in tried if trial.factor is not None and trial.proven]
    most = max((value for value, _ in proven), default=0.0)
    return next((trial for value, trial in proven if value >= _EQUAL_SHARE * most), None)


def _propose_workers(bound: str, setup: RunSetup, now: int, tried: list[RemedyTrial]) -> Iterator[Remedy]:
    """Yield more workers, doubled while that helps; or fewer, if they take cores from the step."""
    if bound == "cores":
        # Downwards to 0, where loading is in the process of the step.
        fewer = sorted({now // 2, 1, 0} - {now}, reverse=True)
        for count in [count for count in fewer if count < now]:
            yield _build_workers_remedy(setup, count)
        return
    # The first try is one worker per core; if there are as many already, twice as many.
    count, reached = max(2, setup.cores) if now < max(2, setup.cores) else 2 * now, 1.0
    for _ in range(_MAX_TRIES):
        if count > MAX_WORKERS:
            return
        yield _build_workers_remedy(setup, count)
        factor = tried[-1].factor if tried else None
        if factor is None or factor.value < reached * _MIN_GROWTH:
            return
        count, reached = 2 * count, factor.value


def _build_workers_remedy(setup: RunSetup, count: int) -> Remedy:
    return Remedy(f"{setup.workers_key}={count}", workers=count)
