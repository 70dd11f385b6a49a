"""Start the job of a drill several times, each on a node with the folders and variables that the platform leaves.

Start a training as the processes of a platform: with its command, and the variables that it sets.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.verify_resume.platform_rules import JobEnding, PlatformRules, end_job
from mlscale.verify_resume.played_node import PlayedNode, extract_error_text, play_node
from mlscale.verify_resume.step_records import (
    AttemptRecords,
    DrillOrder,
    get_reached_path,
    get_sent_path,
    read_attempt_records,
)

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class AttemptOutcome:
    """One start of the job.

    Attributes:
        records: of its steps.
        code: its exit code; None where it was still at work.
        output: the error that it printed, or its last lines.
    """

    records: AttemptRecords
    code: int | None
    output: str


@dataclass
class PlayedJob:
    """A job on a played platform.

    Attributes:
        rules: of the platform.
        folder: the scratch folder: `volume` survives a node, `node-1`, `node-2`, … do not.
        job: the run folder that each start is like.
        start_limit_s: seconds to wait for a start to come to its step.
    """

    rules: PlatformRules
    folder: Path
    job: Path
    start_limit_s: float

    def get_runs_folder(self, node: str) -> Path:
        """Return the folder of the runs as a node sees it."""
        return self.folder / ("volume" if self.rules.survives else node) / "runs"

    def stop_while_starting(self, devices: int, limit_s: float) -> JobEnding:
        """Start the job as it was submitted, and end it by the platform's rules once it has a run folder."""
        runs = self.get_runs_folder("node-0")
        with self._play_attempt("node-0", DrillOrder("starting", last_step=1), devices, 0, dict(os.environ)) as node:
            while not any(runs.glob("*/*/run.json")) and node.get_exit_code() is None:
                time.sleep(_POLL_SECONDS)
            return end_job(node, self.rules, runs, limit_s, lambda: None)

    def run_until_ended(self, devices: int, stop_step: int | None, limit_s: float) -> tuple[AttemptOutcome, JobEnding]:
        """Start the job as it was submitted, and end it by the platform's rules.

        Raises:
            MLScaleError: it ends before the platform ends it, with its own exit code.
        """
        order = DrillOrder("first", signal_step=stop_step, awaits_signal=True)
        with self._play_attempt("node-1", order, devices, 0, dict(os.environ)) as node:
            if not self._wait_until_reached(node, order, devices):
                raise _create_early_end(node)
            ending = end_job(
                node,
                self.rules,
                self.get_runs_folder("node-1"),
                limit_s,
                lambda: get_sent_path(self._records, order.attempt).touch(),
            )
            # After the end: the job may have taken steps after the signal.
            outcome = self._describe_attempt(node, order, ending.code)
        shutil.rmtree(self.folder / "node-1", ignore_errors=True)  # the node is lost
        return outcome, ending

    def restart(self, attempt: str, devices: int, steps: int, supplied: Mapping[str, str]) -> AttemptOutcome:
        """Start the job again on another node, and let it take `steps` optimizer steps.

        Args:
            attempt: names its records.
            supplied: variables that the platform does not pass, so that other faults are found behind a missing one.
        """
        # Nothing of this shell but what the platform would have: that is the point of the restart.
        environment = {**self.rules.select_environment(os.environ), **supplied}
        begun = DrillOrder(attempt, last_step=steps)
        with self._play_attempt("node-2", begun, devices, 1, environment) as node:
            self._wait_until_reached(node, begun, devices)
            return self._describe_attempt(node, begun, node.get_exit_code())

    def run_uninterrupted(self, devices: int, last_step: int) -> AttemptOutcome:
        """Start the same job in a folder of its own, and let it train until an optimizer step."""
        order = DrillOrder("reference", last_step=last_step)
        with self._play_attempt("reference", order, devices, 0, dict(os.environ)) as node:
            self._wait_until_reached(node, order, devices)
            return self._describe_attempt(node, order, node.get_exit_code())

    @property
    def _records(self) -> Path:
        return self.folder / "records"

    @contextlib.contextmanager
    def _play_attempt(
        self, name: str, order: DrillOrder, devices: int, restarts: int, environment: dict[str, str]
    ) -> Iterator[PlayedNode]:
        # One folder of records for all attempts: its path is in the config, which must be the same for all of them.
        order.write_to(self._records)
        local = self.folder / name
        runs = local / "runs" if name == "reference" else self.get_runs_folder(name)
        for needed in (local / "tmp", runs.parent):
            needed.mkdir(parents=True, exist_ok=True)
        # The same words for every start, as the job file of the platform has them.
        words = build_train_words(self.job, str(runs), devices)
        start = build_start(self.rules.name, words, devices, restarts, {"TMPDIR": str(local / "tmp")})
        environments = [{**environment, **variables} for variables in start.variables]
        with play_node(name, self.folder / f"{order.attempt}.log") as node:
            node.start_commands(start.commands, environments)
            yield node

    def _wait_until_reached(self, node: PlayedNode, order: DrillOrder, devices: int) -> bool:
        """Wait until all ranks report that they wait; return False where the job ends before.

        Raises:
            MLScaleError: it takes longer than `start_limit_s`.
        """
        # Of all ranks: a signal while one of them still loads would meet another state than in a long run.
        paths = [get_reached_path(self._records, order.attempt, rank) for rank in range(devices)]
        deadline = time.monotonic() + self.start_limit_s
        while not all(path.exists() for path in paths):
            if node.get_exit_code() is not None:
                return False
            if time.monotonic() > deadline:
                raise MLScaleError(
                    f"the job has not come to its step in {self.start_limit_s:g} s",
                    where=f"attempt {order.attempt}",
                    why=extract_error_text(node.read_log()),
                    fix="stop_step=10\nstart_limit_s=3600",
                )
            time.sleep(_POLL_SECONDS)
        return True

    def _describe_attempt(self, node: PlayedNode, order: DrillOrder, code: int | None) -> AttemptOutcome:
        records = read_attempt_records(self._records, order.attempt)
        return AttemptOutcome(records, code, extract_error_text(node.read_log()))


def _create_early_end(node: PlayedNode) -> MLScaleError:
    output = extract_error_text(node.read_log())
    if node.get_exit_code() == 0:
        return MLScaleError(
            "the run was done before the platform could end it",
            where="stop_step",
            why="it is ended two steps after its first checkpoint, or after stop_step",
            fix="stop_step=3\ntrainer.max_epochs=3",
        )
    return MLScaleError(
        f"the job failed before the platform ended it: {output}",
        where=str(node.log),
        fix="mlscale <the words of the recipe>, the same run without the drill: it shows where",
    )


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
