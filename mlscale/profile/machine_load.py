"""Whether others want this machine's cores, too."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What runs on a machine.

    Attributes:
        processes: that run or wait to run, mean of the last minute, over the whole machine.
        cores: of the whole machine.
    """

    processes: float
    cores: int

    @property
    def busy(self) -> bool:
        """More wants to run than there are cores."""
        return self.processes > self.cores

    def told(self) -> str:
        """For people; empty on a machine that has cores left."""
        return f"the machine is oversubscribed (load {self.processes:.1f} on {self.cores} cores)" if self.busy else ""


def now() -> Load:
    """Ask the operating system, before anything of one's own runs."""
    cores = os.cpu_count() or 1
    try:
        return Load(os.getloadavg()[0], cores)
    except OSError:
        return Load(0.0, cores)
