"""The layout of ranks that another launcher has started: machines, devices of each, and who shares cores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlscale.launch.external.rank_meeting import RankFacts


@dataclass(frozen=True)
class RankLayout:
    """The layout of a run's ranks.

    Attributes:
        devices: ranks of each machine.
        nodes: machines.
        sharing: ranks that share the cores of rank 0.
        ignores_thread_variable: True where OMP_NUM_THREADS is torchrun's own default and not the user's.
    """

    devices: int
    nodes: int
    sharing: int
    ignores_thread_variable: bool

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.devices * self.nodes

    @classmethod
    def derive_layout(cls, members: Mapping[int, RankFacts]) -> RankLayout:
        """Return the layout of these ranks. Where machines have different numbers of ranks, they count as one machine,
        as a CPU takes any number.
        """
        counts = set(Counter(member.node for member in members.values()).values())
        devices = counts.pop() if len(counts) == 1 else len(members)
        first = members[0]
        # Launchers that bind each rank to cores of its own leave it all of them; the others let ranks share a machine.
        sharing = sum(
            other.host == first.host and bool(set(first.cores) & set(other.cores) or not first.cores)
            for other in members.values()
        )
        return cls(devices, len(members) // devices, sharing, has_default_thread_count())


def has_default_thread_count() -> bool:
    """Return True if torchrun has set OMP_NUM_THREADS=1, which it does for several ranks where it is not set."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("OMP_NUM_THREADS") != "1":
        return False
    try:
        # The environment that the agent was started with: what it has set since is not in it.
        before = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in before)
