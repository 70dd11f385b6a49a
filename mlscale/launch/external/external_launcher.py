"""Detect ranks that another launcher started: torchrun, srun, mpirun. Checked before the config is composed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mlscale.errors import MLScaleError
from mlscale.launch.rank import is_rank_process

REFUSING_COMMANDS = frozenset({"retrain", "lifecycle", "verify-resume", "drill", "profile", "predict", "evaluate"})
"""Commands that start one process per device themselves, or do all of the work in one process."""
JOIN_TIMEOUT = 600.0
"""Seconds, the default of launch.timeout_s: for ranks that have not composed the config, and configs without it."""
_ELASTIC_JOB = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True)
class Launcher:
    """The variables of a launcher, and the words of messages about it.

    Attributes:
        name: of the launcher, as messages show it.
        rank, size, local_rank, local_size: the variables that it sets.
        alone: the command that starts one process by it.
    """

    name: str
    rank: str
    size: str
    local_rank: str
    local_size: str
    alone: str


_LAUNCHERS = (
    Launcher("torchrun or a launcher like it", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", ""),
    Launcher("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", "srun --ntasks=1 "),
    Launcher(
        "Open MPI's mpirun",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "",
    ),
    Launcher("mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", ""),
)

_LAUNCH_OPTIONS = {"RANK": " launch=torchrun", "SLURM_PROCID": " launch=slurm"}  # of commands that start the launcher


@dataclass(frozen=True)
class ExternalRank:
    """The place of this process among those that another launcher started.

    Attributes:
        launcher: that launcher.
        rank, world_size: the number of this process among all, and their count.
        environment: the variables of this process.
    """

    launcher: Launcher
    rank: int
    world_size: int
    environment: Mapping[str, str]

    @property
    def local_rank(self) -> int:
        """The number of this process among those of its machine; 0 where the launcher does not set it."""
        return _read_number(self.environment, self.launcher.local_rank) or 0

    @property
    def is_elastic(self) -> bool:
        """True under torchrun, which starts all processes again when one has failed or a machine comes or goes."""
        return _ELASTIC_JOB in self.environment

    def describe_variables(self) -> str:
        """Return the variables that this process was recognised by, as messages show them."""
        launcher = self.launcher
        return f"environment: {launcher.rank}={self.rank} {launcher.size}={self.world_size}"


def find_external_rank(environment: Mapping[str, str] | None = None) -> ExternalRank | None:
    """Return the place of this process among those of another launcher; None where it stands alone.

    A single process of srun or mpirun stands alone: it starts one process per device itself. One of torchrun does not,
    for with `--nnodes=1:2` it may be what is left of several.
    """
    environment = os.environ if environment is None else environment
    if is_rank_process():  # started by mlscale itself, by the agent that torchrun uses
        return None
    for launcher in _LAUNCHERS:
        rank, size = _read_number(environment, launcher.rank), _read_number(environment, launcher.size)
        if rank is None or size is None:
            continue
        if size > 1 or (launcher.rank == "RANK" and _ELASTIC_JOB in environment):
            return ExternalRank(launcher, rank, size, environment)
    return None


def refuse_external_rank(command: str, environment: Mapping[str, str] | None = None) -> None:
    """Raise an error if this process is one of several ranks and the command is not `train`: each would do all of the
    work, in its own run.

    Raises:
        MLScaleError: it is.
    """
    external = find_external_rank(environment) if command in REFUSING_COMMANDS else None
    if external is not None and external.world_size > 1:
        raise create_several_ranks_error(external, command)


def create_several_ranks_error(external: ExternalRank, command: str) -> MLScaleError:
    """Return the error for a command that several ranks can't share."""
    launcher, environment = external.launcher, external.environment
    devices = _read_number(environment, launcher.local_size) or external.world_size
    # It starts torchrun, or a job with srun, itself: a rank can't kill its own launcher, and go on.
    option = _LAUNCH_OPTIONS.get(launcher.rank, "") if command == "verify-resume" else ""
    return MLScaleError(
        f"this process is rank {external.rank} of {external.world_size}, started by {launcher.name}",
        where=external.describe_variables(),
        why=f"only a training is shared by ranks: each of the {external.world_size} would do all of the work alone",
        fix=f"{launcher.alone}python -m mlscale {command} … trainer.devices={devices}{option}, started once; "
        f"or unset {launcher.rank} {launcher.size}, where they are left over from something else",
    )


def _read_number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "") if name else ""
    return int(text) if text.isdigit() else None
