"""Start a training as the processes of a platform: with its command, and the variables that it sets."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_AGENT = ("-m", "mlscale.launch.external.elastic_agent")
_TORCHRUN = ("-m", "torch.distributed.run")
# The drill ends the ranks itself, after the grace period that it plays: torchrun's own 30 s would cut a longer one
# short, and the time that the job needs would not be measured.
_SHUTDOWN = "--shutdown-timeout=86400"
_JOB = "1001"  # the number of the played job


@dataclass(frozen=True)
class PlatformStart:
    """The processes of one start.

    Attributes:
        commands: one for each process that the platform starts.
        variables: those that it sets, for each of them.
    """

    commands: list[list[str]]
    variables: list[dict[str, str]]


def build_start(
    platform: str, words: Sequence[str], devices: int, restarts: int, passed: Mapping[str, str]
) -> PlatformStart:
    """Return the processes by which a platform starts `mlscale <words>` on one node.

    Args:
        platform: slurm, kubernetes, skypilot or torchrun.
        words: a command of mlscale and its overrides.
        devices: processes that train.
        restarts: how often the job was started before.
        passed: variables that the job's own settings add.
    """
    # Loopback addresses: the played host name is known to no name server.
    train = ["-m", "mlscale", *words]
    # srun starts every task itself; the other platforms start an agent on each node.
    if platform == "slurm":
        tasks = [{**_build_slurm_variables(devices, rank, restarts), **passed} for rank in range(devices)]
        return PlatformStart([[sys.executable, *train] for _ in tasks], tasks)
    if platform == "torchrun":
        sizes = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={devices}", _SHUTDOWN]
        command = [sys.executable, *_TORCHRUN, *sizes]
        return PlatformStart([[*command, *train]], [dict(passed)])
    variables = _build_kubeflow_variables(devices) if platform == "kubernetes" else _build_skypilot_variables(devices)
    sizes = [] if platform == "kubernetes" else _AGENT_SIZES
    command = [sys.executable, *_AGENT, "--local-addr=127.0.0.1", *sizes, *train]
    if platform == "skypilot":
        # SkyPilot runs a shell, which replaces the variables.
        command = ["bash", "-c", f'exec "$0" {" ".join(_quote_all(command[1:]))}', command[0]]
    return PlatformStart([command], [{**variables, **passed}])


_AGENT_SIZES = ["--nnodes=$SKYPILOT_NUM_NODES", "--node-rank=$SKYPILOT_NODE_RANK", "--nproc-per-node=$MLSCALE_DEVICES"]


def _quote_all(words: Sequence[str]) -> list[str]:
    """Quote words for a shell, but for those with variables of the platform."""
    import shlex

    return [word if word in _AGENT_SIZES else shlex.quote(word) for word in words]


def _build_slurm_variables(devices: int, rank: int, restarts: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": _JOB, "SLURM_JOBID": _JOB, "SLURM_STEP_ID": "0", "SLURM_STEPID": "0",
        "SLURM_JOB_NAME": "drill", "SLURM_JOB_NODELIST": "localhost", "SLURM_NODELIST": "localhost",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURMD_NODENAME": "localhost",
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "SLURM_NTASKS": str(devices), "SLURM_NPROCS": str(devices),
        "SLURM_STEP_NUM_TASKS": str(devices), "SLURM_NTASKS_PER_NODE": str(devices),
        "SLURM_STEP_TASKS_PER_NODE": str(devices), "SLURM_TASKS_PER_NODE": str(devices),
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_RESTART_COUNT": str(restarts),
    }  # fmt: skip


def _build_kubeflow_variables(devices: int) -> dict[str, str]:
    """Return the variables that Kubeflow Trainer's torch policy sets."""
    return {
        "PET_NNODES": "1", "PET_NPROC_PER_NODE": str(devices), "PET_NODE_RANK": "0",
        "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(_find_free_port()),
    }  # fmt: skip


def _build_skypilot_variables(devices: int) -> dict[str, str]:
    return {
        "SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "127.0.0.1",
        "SKYPILOT_NUM_GPUS_PER_NODE": str(devices), "SKYPILOT_TASK_ID": "sky-managed-drill-1-0",
        "MLSCALE_DEVICES": str(devices),
    }  # fmt: skip


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def build_train_words(job: Path, runs: str, devices: int) -> list[str]:
    """Return the words by which every start of a job trains: like the submitted run, from its latest checkpoint."""
    return ["train", f"like={job}", f"runs_dir={runs}", "resume=auto", "trust=true", f"trainer.devices={devices}"]
