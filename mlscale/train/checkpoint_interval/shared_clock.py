"""A clock that all ranks of a fit read alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

_POLL_SECONDS = 1.0  # between two reads of the clock that all ranks share
# An upper bound of the steps between two reads: later steps may be slower than the measured ones.
_MAX_STEPS = 200


class SharedClock:
    """A clock of seconds since its last restart, the same on all ranks. The first rank broadcasts about once a second:
    the number of steps between two broadcasts follows from the time that a step takes."""

    def __init__(self) -> None:
        self._started = self._read_at = time.monotonic()
        self._steps = self._left = 1

    def restart_clock(self) -> None:
        """Count from now."""
        self._started = time.monotonic()

    def has_elapsed(self, trainer: Trainer, seconds: float) -> bool:
        """Return whether so many seconds have passed since the restart, by the first rank's clock and `seconds`.

        A collective. False at steps at which the clock is not read.
        """
        if trainer.world_size == 1:
            return time.monotonic() - self._started >= seconds
        self._left -= 1
        if self._left:
            return False
        now = time.monotonic()
        per_step = (now - self._read_at) / self._steps
        # The number of steps is broadcast too: the ranks' clocks differ, and all must enter the next broadcast at once.
        elapsed, steps = trainer.strategy.broadcast(
            (now - self._started >= seconds, max(1, min(_MAX_STEPS, int(_POLL_SECONDS / max(per_step, 1e-6)))))
        )
        self._read_at, self._steps, self._left = now, steps, steps
        return bool(elapsed)
