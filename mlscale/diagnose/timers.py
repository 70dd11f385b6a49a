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

# What Lightning calls the actions that are timed; tests/unit/diagnose notices when it calls them otherwise.
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
    """Where the time of a fit went, seconds, from the end of its warm-up to the end of its last step.

    A step is one forward and backward pass, with its share of the optimizer's.

    Attributes:
        steps: how many there were.
        total: all of the time.
        wait: for batches; for the first of an epoch, loaders start meanwhile.
        between: from the last step of an epoch until the first batch of the next is asked for.
    """

    steps: int
    total: float
    wait: float
    between: float

    @property
    def step(self) -> float:
        """Seconds of a step, its share of the time between epochs included."""
        return self.total / self.steps

    @property
    def rest(self) -> float:
        """Seconds of all that is neither wait nor between epochs: transfer, forward, backward, optimizer, callbacks."""
        return self.total - self.wait - self.between

    @property
    def predicted(self) -> float:
        """How much faster a loader that nobody waits for would be, by the timers alone."""
        return self.total / (self.total - self.wait)


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
        if stage == "fit" and self._local_rank in (None, 0) and not self._written:  # Lightning asks again at its death
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


def parts(epochs: Sequence[Epoch], warm_up: int) -> Parts:
    """Where the time went after `warm_up` steps.

    Raises:
        ValueError: no step is left after the warm-up.
    """
    ends = [end for epoch in epochs for end in epoch.done]
    if not 0 < warm_up < len(ends):
        raise ValueError(f"{len(ends)} steps, of which {warm_up} warm up")
    since, until = ends[warm_up - 1], ends[-1]
    wait = between = 0.0
    for number, epoch in enumerate(epochs):
        waits = zip(epoch.asked, epoch.given, strict=False)
        wait += sum(given - asked for asked, given in waits if since <= asked < until)
        if number and epochs[number - 1].done[-1] >= since:
            between += epoch.asked[0] - epochs[number - 1].done[-1]
    return Parts(len(ends) - warm_up, until - since, wait, between)
