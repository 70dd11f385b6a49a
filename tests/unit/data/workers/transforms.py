"""Transforms in Python that worker processes can find by name."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class Noise:
    """Draws from every global generator; notes the process that it runs in."""

    def __init__(self, pids: Path | None = None, seconds: float = 0.0) -> None:
        self.pids, self.seconds = pids, seconds

    def __call__(self, x: Tensor) -> Tensor:
        if self.pids is not None:
            (self.pids / str(os.getpid())).touch()
        spend(self.seconds)
        shift = int(torch.randint(0, 9, (1,))) + random.randrange(9) + np.random.randint(9)
        return (x.float() * torch.rand(x.shape) + shift).to(x.dtype)


class Enlarge:
    """Changes the size."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.repeat(1, 2, 3)


class Odd:
    """Changes the size of some samples."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.repeat(1, random.choice((1, 2)), 1)


class AsFloat:
    """Returns another type."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.float()


class Dies:
    """Ends its process, by a signal or an exit code, raises, or takes long, at the first sample of that sum."""

    def __init__(self, total: int, how: str) -> None:
        self.total, self.how = total, how

    def __call__(self, x: Tensor) -> Tensor:
        if int(x.long().sum()) == self.total:
            if self.how == "raise":
                raise ValueError("not this one")
            if self.how == "exit":
                os._exit(7)
            if self.how == "wait":
                time.sleep(1.5)
                return x
            os.kill(os.getpid(), signal.SIGKILL)
        return x


class Unreadable:
    """Can be pickled, and not read again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse_to_load, ()

    def __call__(self, x: Tensor) -> Tensor:
        return x


def _refuse_to_load() -> None:
    raise ModuleNotFoundError("no such module there")


class Photos(Dataset[Any]):
    """A dataset whose samples draw from every generator, and which may kill a process that is not the test's own."""

    def __init__(self, count: int, pids: Path | None = None, *, seconds: float = 0.0, dies: str = "") -> None:
        self.count, self.pids, self.seconds, self.dies = count, pids, seconds, dies
        self.pid = os.getpid()
        self.targets = [number % 3 for number in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        if self.pids is not None:
            (self.pids / str(os.getpid())).touch()
        spend(self.seconds)
        if self.dies == "kill" and number == 17 and os.getpid() != self.pid:
            os.kill(os.getpid(), signal.SIGKILL)
        x = torch.full((3, 8, 8), float(number)) + torch.rand(1) + random.random() + np.random.rand()
        return {"x": x, "y": number % 3, "name": f"photo {number}", "half": torch.ones(2, dtype=torch.bfloat16)}


def spend(seconds: float) -> None:
    """Compute for so many seconds of this thread, in Python."""
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass
