"""Two timers in a fit: the wait for the loader's next batch, and all the rest of a step."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.profilers import Profiler

# What Lightning calls the actions that are timed; tests/unit/profile notices when it calls them otherwise.
_EPOCH, _NEXT, _BATCH = "run_training_epoch", "train_dataloader_next", "run_training_batch"


@dataclass
class Epoch:
    """Moments of one epoch, seconds of the clock.

    Attributes:
        asked, given: when the loader was asked for a batch, and when it gave it, or said that there is none.
        done: when a batch was trained on; on a CUDA device, when the device was done with it.
    """

    asked: list[float] = field(default_factory=list)
    given: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Parts:
    """Where the time of a step goes, seconds, the start of its epoch shared among all of the epoch's steps.

    A step is one forward and backward pass, with its share of the optimizer's.

    Attributes:
        steps: how many were measured.
        step: all of it.
        wait: for batches; for the first of an epoch, loaders start meanwhile.
        between: from the last step of an epoch until the first batch of the next is asked for.
    """

    steps: int
    step: float
    wait: float
    between: float

    @property
    def predicted(self) -> float:
        """How much faster a loader that nobody waits for would be, by the timers alone."""
        return self.step / (self.step - self.wait)


class TwoTimers(Profiler):
    """A Lightning profiler (`trainer.profiler`) that looks at the clock three times a step, and writes a JSON file.

    On a CUDA device each step ends with an event that is waited for. Otherwise the host runs ahead, the device's work
    is done while the host asks for the next batch, and computing looks like a wait for data. That code path is real and
    was not run: no CUDA device was at hand.

    Args:
        path: the JSON file that the first process of a machine writes at the end of a fit.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._epochs: list[Epoch] = []
        self._kinds: dict[str, str] = {}
        self._written = False
        self._over = True  # whether the next batch begins an epoch

    def start(self, action_name: str) -> None:
        kind = self._kind(action_name)
        if kind == _NEXT:
            if self._over:
                self._epochs.append(Epoch())
                self._over = False
            self._epochs[-1].asked.append(time.perf_counter())

    def stop(self, action_name: str) -> None:
        kind = self._kind(action_name)
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
            # Lightning calls this again when the profiler is collected: the folder of a fit that failed is gone then.
            self._path.write_text(json.dumps([asdict(epoch) for epoch in self._epochs if epoch.done]))
            self._written = True
        super().teardown(stage)

    def _kind(self, action: str) -> str:
        """The name of the action without the object that does it: a look-up, for it is asked at every hook."""
        if (kind := self._kinds.get(action)) is None:
            kind = self._kinds[action] = action.rsplit(".", 1)[-1]
        return kind


def read(path: Path) -> list[Epoch]:
    """What timers have written."""
    return [Epoch(**epoch) for epoch in json.loads(path.read_text())]


def parts(epochs: Sequence[Epoch], warm_up: int, length: int | None) -> Parts:
    """Where the time goes in epochs of `length` steps, by shorter or longer ones that were timed.

    An epoch is one step with its start, and others; both are means over what was timed. So a loader that takes long to
    start is charged for that as often as the run's own epochs begin, whatever the length of those that were timed.

    Args:
        warm_up: steps of the first epoch that count for nothing.
        length: of the run's epochs; None where unknown, and then taken for long.

    Raises:
        ValueError: nothing is left after the warm-up.
    """
    others, firsts, between = list[tuple[float, float]](), list[tuple[float, float]](), list[float]()
    for number, epoch in enumerate(epochs):
        places = range(max(1, 0 if number else warm_up), len(epoch.done))
        others += [_step(epoch, epoch.done[place - 1], epoch.done[place]) for place in places]
        if number:
            before = epochs[number - 1].done[-1]
            firsts.append(_step(epoch, before, epoch.done[0]))
            between.append(epoch.asked[0] - before)
    if not others and not firsts:
        raise ValueError(f"{sum(len(epoch.done) for epoch in epochs)} steps, of which {warm_up} warm up")
    share = 0.0 if not firsts or (length is None and others) else 1 / (length or 1) if others else 1.0
    step, wait = (share * _mean(firsts, part) + (1 - share) * _mean(others, part) for part in (0, 1))
    return Parts(len(others) + len(firsts), step, wait, share * sum(between) / max(1, len(between)))


def _step(epoch: Epoch, since: float, until: float) -> tuple[float, float]:
    """What a step took, and what of that was a wait."""
    waits = zip(epoch.asked, epoch.given, strict=False)
    return until - since, sum(given - asked for asked, given in waits if since <= asked < until)


def _mean(steps: Sequence[tuple[float, float]], part: int) -> float:
    return sum(step[part] for step in steps) / len(steps) if steps else 0.0
