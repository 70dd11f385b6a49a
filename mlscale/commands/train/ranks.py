"""The ranks of a training: started here and restarted when one has died, or gathered from another launcher.

The layout of ranks that another launcher has started: machines, devices of each, and who shares cores.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.errors import STOPS, Exit, MLScaleError
from mlscale.launch.external.rank_meeting import RankFacts

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.assembly.run_data import RunData
    from mlscale.launch.external.external_launcher import ExternalRank
    from mlscale.launch.external.first_rank import FirstRank

# Outcomes that another start would repeat, and stops that were asked for.
_FINAL_EXITS = (Exit.USER, Exit.DIVERGED, Exit.GATE, *STOPS)


def read_launch_setting(cfg: DictConfig, key: str, default: float) -> float:
    """Return a setting of the group `launch`, which runs of earlier versions don't have."""
    value = (cfg.get("launch") or {}).get(key)
    return default if value is None else float(value)


@dataclass(frozen=True)
class GatheredRanks:
    """Ranks that another launcher has started, as rank 0 sees them.

    Attributes:
        first: rank 0 at their meeting.
        layout: machines and devices.
    """

    first: FirstRank
    layout: RankLayout

    @property
    def agents(self) -> list[str]:
        """The processes of torchrun that started the ranks, and outlive them; none under other launchers."""
        members = self.first.members.values() if self.first.external.is_elastic else ()
        return sorted({member.agent for member in members})

    @classmethod
    def gather(cls, first: FirstRank, cfg: DictConfig) -> GatheredRanks:
        """Return the ranks around `first`, whose number is filled in as `trainer.devices`.

        Raises:
            MLScaleError: another number was typed.
        """
        layout = RankLayout.derive_layout(first.members)
        typed = next(
            (word for word in cfg.derived.overrides or () if word.lstrip("+").startswith("trainer.devices=")), ""
        )
        value = typed.partition("=")[2].strip("'\"")
        if value not in ("", "auto", "-1", str(layout.devices)):
            per_node = f" on each of {layout.nodes} nodes" if layout.nodes > 1 else ""
            raise MLScaleError(
                f"trainer.devices={value} contradicts the launcher, which started {layout.devices} "
                f"process{'es' if layout.devices != 1 else ''}{per_node}",
                where=f"command line: {typed}",
                why=first.external.describe_variables(),
                fix=f"trainer.devices={layout.devices}",
            )
        cfg.trainer.devices = layout.devices
        return cls(first, layout)

    def describe_lines(self, cfg: DictConfig) -> list[str]:
        """Return the lines that report them."""
        external, layout = self.first.external, self.layout
        nodes = f" on each of {layout.nodes} nodes" if layout.nodes > 1 else ""
        lines = [f"ranks     {layout.devices}{nodes}, started by {external.launcher.name}"]
        if read_launch_setting(cfg, "max_restarts", 0):
            lines.append(
                "launch.max_restarts has no effect: the launcher restarts ranks, as torchrun --max-restarts does"
            )
        return lines


def create_submission_error(external: ExternalRank, scheduler: str) -> MLScaleError:
    """Return the error for a config that is to be submitted, where another launcher has started several ranks."""
    launcher = external.launcher
    return MLScaleError(
        f"launch={scheduler} submits a job, and {launcher.name} has started {external.world_size} processes",
        where=external.describe_variables(),
        why="one process submits a job; several train here, as one run",
        fix=f"launch=local, which trains in these {external.world_size} processes\n"
        f"{launcher.alone}python -m mlscale … launch={scheduler}, started once",
    )


def train_ranks(
    folder: Path,
    world_size: int,
    checkpoint: Path | None,
    *,
    ranks: GatheredRanks | None,
    run_data: RunData,
    secrets: Mapping[str, str],
    max_restarts: int,
    open_again: Callable[[], Path | None],
) -> None:
    """Train what `folder` describes on all ranks; those that were started here are restarted after a failure.

    Args:
        secrets: variables that the config refers to and only this process has.
        max_restarts: restarts at most.
        open_again: starts another attempt at the run, and returns the checkpoint to resume from.

    Raises:
        MLScaleError: what ended the run.
    """
    from mlscale.assembly.launch import launch_training

    if ranks is not None:
        from mlscale.assembly.external_run import train_as_first_rank

        run_data.release_module()
        train_as_first_rank(ranks.first, folder, checkpoint, secrets)
        return
    for restart in range(max_restarts + 1):
        try:
            # One process that may be restarted is a child as well: this one is there to restart it.
            launch_training(folder, world_size, checkpoint, run_data, as_children=max_restarts > 0)
            return
        except MLScaleError as error:
            if error.exit in _FINAL_EXITS or restart == max_restarts:
                raise
            print(f"restart   {restart + 1} of {max_restarts}, after: {error.what}", file=sys.stderr, flush=True)
            checkpoint = open_again()


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
