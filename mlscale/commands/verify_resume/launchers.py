"""Choose what starts the trainings of a verification: mlscale itself, torchrun, a cloud's start command, or SLURM."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.commands.drill.platform_start import build_start
from mlscale.commands.rehearsal_config import read_process_count
from mlscale.commands.verify_resume.slurm_starter import SlurmStarter
from mlscale.errors import MLScaleError
from mlscale.verify_resume.killed_run import CommandStarter, RunStarter

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SLURM = "slurm"


def get_scheduler(cfg: DictConfig) -> str | None:
    """Return what `launch` names to start the ranks; None where mlscale does."""
    name = (cfg.get("launch") or {}).get("scheduler")
    return str(name) if name else None


def find_scratch_parent(cfg: DictConfig) -> Path:
    """Return the folder for the scratch folder of a verification: one that all nodes of a cluster see."""
    return Path(cfg.runs_dir).absolute() if get_scheduler(cfg) == _SLURM else Path(tempfile.gettempdir())


def replace_launch(cfg: DictConfig) -> None:
    """Make the frozen config one of ranks that are started from outside; that of a job of SLURM is submitted as it is.

    Raises:
        MLScaleError: the number of processes is not given, or nothing is to be started.
    """
    name = get_scheduler(cfg)
    if name is None:
        return
    if cfg.launch.get("dry_run"):
        raise MLScaleError(
            "verify-resume starts jobs, which launch.dry_run forbids",
            where="launch.dry_run",
            fix="launch.dry_run=false",
        )
    read_process_count(cfg, f"launch={name}")
    if name != _SLURM:
        # Its processes are the job itself, which must not be submitted again.
        cfg.launch = {"max_restarts": 0, "timeout_s": cfg.launch.timeout_s}


def create_starter(cfg: DictConfig, root: Path, report: Callable[..., None]) -> RunStarter:
    """Return what starts and kills the trainings in `root`."""
    name = get_scheduler(cfg)
    if name is None:
        return CommandStarter(root)
    if name == _SLURM:
        return SlurmStarter(root, report)

    def build_command(words: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
        start = build_start(name, words, int(cfg.trainer.devices), 0, {})
        return start.commands[0], start.variables[0]

    return CommandStarter(root, build_command)
