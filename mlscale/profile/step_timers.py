"""Time a fit by two timers: the wait for the loader's next batch, and the rest of a step."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.profilers import Profiler

# Lightning's names of the timed actions; tests/unit/profile fails if they change.
_EPOCH, _NEXT, _BATCH = "run_training_epoch", "train_dataloader_next", "run_training_batch"


@dataclass
class EpochTimes:
    """The moments of one epoch, seconds of the clock.

        Attributes:
    requested, given: request of a batch from the loader, and its return, or the end of the loader.
            done: end of the training on a batch; on a CUDA device, the end of the device's work.
    """

    requested: list[float] = field(default_factory=list)
    given: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class StepTimes:
    """The time of a step by part, seconds, the start of its epoch shared among all of the epoch's steps.

    A step is one forward and backward pass, with its share of the optimizer's step.

    Attributes:
        steps: number of measured steps.
        step: the whole step.
        wait: for batches; for the first of an epoch, it includes the start of loaders.
        between: from the last step of an epoch until the request for the first batch of the next.
    """

    steps: int
    step: float
    wait: float
    between: float

    @property
    def predicted(self) -> float:
        """The factor of a loader without any wait, as predicted by the timers alone."""
        return self.step / (self.step - self.wait)


class TwoTimers(Profiler):
    """A Lightning profiler (`trainer.profiler`) that reads the clock three times a step, and writes a JSON file.

    On a CUDA device it waits for an event at the end of each step. Otherwise the host runs ahead, the device works
    while the host requests the next batch, and compute would count as a wait for data. Not tested on a CUDA device.

    Args:
        path: the JSON file that the first process of a machine writes at the end of a fit.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._epochs: list[EpochTimes] = []
        self._kinds: dict[str, str] = {}
        self._written = False
        self._over = True  # true if the next batch starts an epoch

    def start(self, action_name: str) -> None:
        kind = self._strip_owner(action_name)
        if kind == _NEXT:
            if self._over:
                self._epochs.append(EpochTimes())
                self._over = False
            self._epochs[-1].requested.append(time.perf_counter())

    def stop(self, action_name: str) -> None:
        kind = self._strip_owner(action_name)
        if kind == _NEXT:
            self._epochs[-1].given.append(time.perf_counter())
        elif kind == _BATCH:
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
                done.record()
                done.synchronize()
            self._epochs[-1].done.append(time.perf_counter())
        elif kind == _EPOCH:
            self._over = True

    def teardown(self, stage: str | None) -> None:
        if stage == "fit" and self._local_rank in (None, 0) and not self._written and self._path.parent.is_dir():
            # Lightning calls this again when the profiler is garbage-collected: a failed fit's folder is gone by then.
            self._path.write_text(json.dumps([asdict(epoch) for epoch in self._epochs if epoch.done]))
            self._written = True
        super().teardown(stage)

    def _strip_owner(self, action: str) -> str:
        """Return the name of the action without its object; cached, as it is called at every hook."""
        if (kind := self._kinds.get(action)) is None:
            kind = self._kinds[action] = action.rsplit(".", 1)[-1]
        return kind


def read_epoch_times(path: Path) -> list[EpochTimes]:
    """Return the epochs that timers have written."""
    return [EpochTimes(**epoch) for epoch in json.loads(path.read_text())]


def compute_step_times(epochs: Sequence[EpochTimes], warm_up: int, length: int | None) -> StepTimes:
    """Return the time by part in epochs of `length` steps, from shorter or longer ones that were timed.

    An epoch is a first step with its start, and other steps; both are means over the timed ones. So the start of a
    loader counts as often as the run's own epochs start, whatever the length of those that were timed.

    Args:
        warm_up: steps of the first epoch that are not counted.
        length: of the run's epochs; None if unknown, and then assumed to be long.

    Raises:
        ValueError: no steps are left after the warm-up.
    """
    others, firsts, between = list[tuple[float, float]](), list[tuple[float, float]](), list[float]()
    for number, epoch in enumerate(epochs):
        indices = range(max(1, 0 if number else warm_up), len(epoch.done))
        others += [_measure_step(epoch, epoch.done[index - 1], epoch.done[index]) for index in indices]
        # The first step of a later epoch starts where the last one of the epoch before ended.
        if number:
            before = epochs[number - 1].done[-1]
            firsts.append(_measure_step(epoch, before, epoch.done[0]))
            between.append(epoch.requested[0] - before)
    if not others and not firsts:
        raise ValueError(f"{sum(len(epoch.done) for epoch in epochs)} steps, of which {warm_up} warm up")
    # The share of first steps among all steps of the run's epochs: one in `length`.
    share = 0.0 if not firsts or (length is None and others) else 1 / (length or 1) if others else 1.0
    step, wait = (share * _compute_mean(firsts, part) + (1 - share) * _compute_mean(others, part) for part in (0, 1))
    return StepTimes(len(others) + len(firsts), step, wait, share * sum(between) / max(1, len(between)))


def _measure_step(epoch: EpochTimes, since: float, until: float) -> tuple[float, float]:
    """Return the seconds of a step, and the part of them that was a wait."""
    # Not strict: a fit that fails within an epoch may leave a request without a batch.
    waits = zip(epoch.requested, epoch.given, strict=False)
    return until - since, sum(given - requested for requested, given in waits if since <= requested < until)


def _compute_mean(steps: Sequence[tuple[float, float]], part: int) -> float:
    return sum(step[part] for step in steps) / len(steps) if steps else 0.0
