"""Detect ranks that another launcher started: torchrun, srun, mpirun. Checked before the config is composed."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mlscale.errors import MLScaleError

LAUNCHING_COMMANDS = frozenset({"train", "retrain", "lifecycle", "verify-resume", "drill", "profile", "predict"})
"""Commands that start one process per device themselves."""

# Variables of the world size and the rank, the launcher that sets them, and the command that starts one process.
_LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "torchrun or a launcher like it", "python -m mlscale"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun", "srun --ntasks=1 python -m mlscale"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "Open MPI's mpirun", "python -m mlscale"),
    ("PMI_SIZE", "PMI_RANK", "mpirun", "python -m mlscale"),
)


def refuse_external_rank(command: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raise an error if this process is one of several ranks: each would do all of the work, in its own run.

    Args:
        command: of mlscale.
        environment: the process's variables.

    Raises:
        MLScaleError: it is.
    """
    for size, rank, launcher, alone in _LAUNCHERS if command in LAUNCHING_COMMANDS else ():
        count = environment.get(size, "")
        # One process is allowed: `srun --ntasks=1` sets the variables as well.
        if rank not in environment or not count.isdigit() or int(count) < 2:
            continue
        local = environment.get("LOCAL_WORLD_SIZE", "") if size == "WORLD_SIZE" else ""
        devices = local if local.isdigit() and int(local) else count
        words = alone if command == "train" else f"{alone} {command}"
        raise MLScaleError(
            f"this process is rank {environment[rank]} of {count}, started by {launcher}",
            where=f"environment: {rank}={environment[rank]} {size}={count}",
            why=f"mlscale starts one process per device itself; each of the {count} would do all of the work alone",
            fix=f"{words} … trainer.devices={devices}, started once; "
            f"or unset {rank} {size}, where they are left over from something else",
        )
