"""Call the programs of SLURM: sbatch, squeue, scontrol, sacct, scancel; each with a time limit."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from mlscale.errors import Exit, MLScaleError

_SECONDS = 30.0
# A word of SLURM's reason for a refusal, and what to type. Of several the first one counts.
_SETTINGS = {
    "generic resource": "trainer.accelerator=cpu for a job without GPUs; or launch.gres=<what sinfo -o %G shows>",
    "gres": "trainer.accelerator=cpu for a job without GPUs; or launch.gres=<what sinfo -o %G shows>",
    "invalid partition": "launch.partition=<one of sinfo -s>",
    "account": "launch.account=<one of sacctmgr show associations user=$USER>",
    "qos": "launch.qos=<one of sacctmgr show qos>",
    "time limit": "launch.time=<at most what sinfo -o '%P %l' shows>",
}
# Variables that describe an allocation; inside `salloc` a submitted job would inherit the wrong ones. Those of SLURM's
# clients are kept: where the cluster is, and how times are shown.
_CLIENT_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SLURM_JWT")
_ALLOCATION_VARIABLE = re.compile(
    r"(SLURM|SLURMD|SRUN|PMI|PMIX|OMPI|TORCHELASTIC|MLSCALE_JOB)_.*|(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)"
)


def run_slurm(words: Sequence[str], *, variables: Mapping[str, str] | None = None) -> str:
    """Return what a program of SLURM prints. Variables of an allocation that this process is in are left out.

    Args:
        words: the program and its arguments.
        variables: further variables of its environment.

    Raises:
        MLScaleError: it is not installed, fails, or takes more than half a minute (exit code 5).
    """
    environment = filter_environment(os.environ) | dict(variables or {})
    try:
        done = subprocess.run(
            list(words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, env=environment
        )
    except FileNotFoundError as error:
        raise MLScaleError(
            f"{words[0]} is not installed here",
            where=shlex.join(words),
            why="it is part of SLURM's clients, which login nodes have",
            fix="launch.dry_run=true, which prints the job script anywhere; or start the command on a login node",
            exit=Exit.ENVIRONMENT,
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MLScaleError(
            f"{words[0]} did not finish within {_SECONDS:.0f} s",
            where=shlex.join(words),
            why="the controller of the cluster (slurmctld) may be down",
            fix="scontrol ping",
            exit=Exit.ENVIRONMENT,
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MLScaleError(
            f"{words[0]} failed",
            where=shlex.join(words),
            why=lines[-1].removeprefix(f"{words[0]}: ").removeprefix("error: "),
            fix=_suggest_setting(lines[-1]) or f"sinfo, which shows what this cluster has: or {words[0]} --help",
            exit=Exit.ENVIRONMENT,
        )
    return done.stdout


def _suggest_setting(reason: str) -> str:
    """Return the setting that SLURM's reason for a refusal is about; empty where it is not known."""
    return next((setting for word, setting in _SETTINGS.items() if word in reason.lower()), "")


def filter_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a job: without variables of an allocation or a launcher that this process is in."""
    return {
        name: value
        for name, value in environment.items()
        if name in _CLIENT_VARIABLES or not _ALLOCATION_VARIABLE.fullmatch(name)
    }


def submit_held_script(script: Path, variables: Mapping[str, str] | None = None) -> str:
    """Submit a job script, held, and return the job's id. The job gets the environment of this process.

    Args:
        script: the job script.
        variables: further variables of its environment.

    Raises:
        MLScaleError: SLURM refuses it, or is not there (exit code 5).
    """
    # With --parsable: `12`, or `12;cluster` where several clusters are known.
    # SLURM keeps the environment where only root can read it, for a requeued job as well: secrets travel in it.
    words = ["sbatch", "--parsable", "--export=ALL", "--hold", str(script)]
    return run_slurm(words, variables=variables).strip().partition(";")[0]


def release_job(job: str) -> None:
    """Let a held job start.

    Raises:
        MLScaleError: SLURM does not (exit code 5); the job is cancelled then.
    """
    try:
        run_slurm(["scontrol", "release", job])
    except MLScaleError:
        with contextlib.suppress(MLScaleError):
            cancel_job(job)
        raise


def cancel_job(job: str) -> None:
    """Cancel a job, or a task of an array.

    Raises:
        MLScaleError: SLURM does not (exit code 5).
    """
    run_slurm(["scancel", job])


@cache
def read_cluster_name() -> str:
    """Return the name of the cluster that SLURM's clients here belong to.

    Raises:
        MLScaleError: its controller does not respond (exit code 5).
    """
    match = re.search(r"^ClusterName\s*=\s*(\S+)", run_slurm(["scontrol", "show", "config"]), re.MULTILINE)
    return match[1] if match else "cluster"
