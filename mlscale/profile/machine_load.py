"""Check whether other processes use this machine's cores."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class MachineLoad:
    """The load of a machine.

    Attributes:
        processes: number that run or wait to run, mean of the last minute, over the whole machine.
        cores: of the whole machine.
    """

    processes: float
    cores: int

    @property
    def busy(self) -> bool:
        """True if more processes want to run than there are cores."""
        return self.processes > self.cores

    def compute_uncertainty(self, threads: int) -> float:
        """Return the share by which `threads` of a run take longer if twice as many other processes want to run; 0 on a
        machine with free cores.
        """
        running = self.processes + threads
        return self.processes / running if running > self.cores else 0.0

    def describe_oversubscription(self) -> str:
        """Return a message; empty on a machine with free cores."""
        return f"the machine is oversubscribed (load {self.processes:.1f} on {self.cores} cores)" if self.busy else ""


def measure_load() -> MachineLoad:
    """Return the load as the operating system reports it; called before this program's own work starts."""
    # Of the whole machine, not those of this process: the load average counts the whole machine's processes.
    cores = os.cpu_count() or 1
    try:
        return MachineLoad(os.getloadavg()[0], cores)
    except OSError:  # the system has no load average: then nothing is reported
        return MachineLoad(0.0, cores)
