"""The layouts of `scripts/bench_resume.py`: how each starts an attempt at a run, and what can be killed of it."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlscale.runs.job_record import read_job_record
from scripts.kill_processes import ATTEMPT, find_processes, kill_processes

ROOT = Path(__file__).resolve().parents[1]
MLSCALE = [sys.executable, "-m", "mlscale"]
FSDP, PARTS = "fsdp2", "fsdp2-parts"
SHARDED = {FSDP: ["strategy=fsdp"], PARTS: ["strategy=fsdp", "strategy.sharded_checkpoint=true"]}
"""The layouts that shard the model, with one file per checkpoint or a part per process, and what is typed for them."""
RANKS = {"1": 1, "2": 2, FSDP: 2, PARTS: 2, "torchrun": 2, "2xtorchrun": 2, "slurm": 2}
"""The layouts, and their numbers of processes."""
HUNG_SECONDS = 600.0
_POLL_SECONDS = 0.002
HELD_START = "launch.setup=['touch begun; until [ -e sent ]; do sleep 0.2; done']"
"""What is typed for a job of SLURM that waits for `signal_starting_job`."""
_SUBMITTED = ["launch=slurm", "launch.nodes=2", "launch.grace_s=30", "launch.max_failures=50"]


def is_local(layout: str) -> bool:
    """Return whether mlscale itself starts the ranks of a layout."""
    return layout.isdigit() or layout in SHARDED


def find_reference_layout(layout: str) -> str:
    """Return the layout of undisturbed runs that one of `layout` is compared with: sharded gradients are added up in
    another order. A checkpoint in parts must hold what one file does."""
    return FSDP if layout in SHARDED else str(RANKS[layout])


def list_typed_words(layout: str) -> list[str]:
    """Return the words by which a layout is typed."""
    if is_local(layout):
        return [f"trainer.devices={RANKS[layout]}", *SHARDED.get(layout, [])]
    # A node that was killed before it joined is waited for: by default for ten minutes.
    return [] if layout == "slurm" else ["launch.timeout_s=90"]


def build_launcher(layout: str) -> list[str]:
    """Return the command that starts the ranks of a layout."""
    if is_local(layout):
        return MLSCALE
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--master-addr=127.0.0.1", f"--master-port={port}"]
    if layout == "torchrun":
        return [*torchrun, "--nproc-per-node=2", "-m", "mlscale"]
    # Where one is killed before they meet, the other waits for it, by default for a quarter of an hour.
    node = [*torchrun, "--nnodes=2", "--nproc-per-node=1", "--rdzv-conf=timeout=60"]
    first, second = (shlex.join([*node, f"--node-rank={rank}", "-m", "mlscale"]) for rank in (0, 1))
    # Waits for both: what a lost node leaves must end by itself.
    return ["bash", "-c", f'{first} "$@" & a=$!; {second} "$@"; code=$?; wait $a && exit $code', "bash"]


@dataclass
class Attempt:
    """An attempt at a run by a command, with all processes that it starts.

    Attributes:
        folder: where it was started.
        words: what is typed after the launcher.
        layout: how it is launched.
    """

    folder: Path
    words: list[str]
    layout: str
    name: str = field(default_factory=lambda: secrets.token_hex(8))

    def start(self) -> None:
        """Start it."""
        launcher = MLSCALE if self.words[0] == "runs" else build_launcher(self.layout)
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [*launcher, *self.words],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), ATTEMPT: self.name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Linux shares the cores between sessions: a busy terminal would take those of the trial.
                start_new_session=True,
            )

    def is_over(self) -> bool:
        """Return True if the command has ended."""
        return self.process.poll() is not None

    @property
    def has_succeeded(self) -> bool:
        """True if it has ended with 0."""
        return self.process.returncode == 0

    def kill(self, draw: random.Random, *, whole: bool) -> str:
        """Kill all processes, or one of them, drawn; return which."""
        found = find_processes(self.name)
        if whole or not found:
            kill_processes([each.pid for each in found])
            return "all processes"
        one = draw.choice(found)
        kill_processes([one.pid])
        return "its launcher" if one.pid == self.process.pid else "a process"

    def end(self) -> None:
        """Kill what is left."""
        kill_processes([each.pid for each in find_processes(self.name)])
        self.process.wait()


@dataclass
class JobAttempt(Attempt):
    """A start of a job on SLURM: the first one submits it, the others are the job's own.

    Attributes:
        number: the starts before this one.
    """

    number: int = 0

    def submit(self) -> None:
        """Submit the job."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), ATTEMPT: self.name}
        with (self.folder / "output").open("ab") as output:
            words = [*MLSCALE, *self.words, *_SUBMITTED]
            subprocess.run(words, cwd=self.folder, env=environment, stdout=output, stderr=output, check=True)

    def start(self) -> None:
        """Submit the job, unless it is requeued, and wait for its ranks."""
        if self.number == 0:
            self.submit()
        end = time.monotonic() + HUNG_SECONDS
        while not self.list_tasks() and not self.is_over() and time.monotonic() < end:
            time.sleep(0.02)

    def list_tasks(self) -> list[int]:
        """Return the processes of the ranks."""
        return [each.pid for each in find_processes(self.name) if each.is_task]

    def is_over(self) -> bool:
        """Return True if this start has ended."""
        record = read_job_record(find_run(self.folder))
        assert record is not None
        if record.stopped:
            return True
        return len(record.starts) > self.number and record.starts[self.number].ended is not None

    @property
    def has_succeeded(self) -> bool:
        """True if this start has ended with 0."""
        record = read_job_record(find_run(self.folder))
        assert record is not None
        return not record.stopped and record.starts[self.number].code == 0

    def kill(self, draw: random.Random, *, whole: bool) -> str:
        """Kill all ranks, or one of them: the job's script starts them again."""
        tasks = self.list_tasks()
        kill_processes(tasks if whole or not tasks else [draw.choice(tasks)])
        return "all processes" if whole or not tasks else "a process"

    def end(self) -> None:
        """Cancel the job."""
        record = read_job_record(find_run(self.folder))
        if record is not None:
            subprocess.run(["scancel", record.id], check=False, capture_output=True)


def create_attempt(folder: Path, words: list[str], layout: str, before: Attempt | None) -> Attempt:
    """Return the next attempt at a run, not yet started."""
    if layout != "slurm":
        return Attempt(folder, words, layout)
    if isinstance(before, JobAttempt):
        return JobAttempt(folder, words, layout, before.name, before.number + 1)
    return JobAttempt(folder, words, layout)


def signal_starting_job(folder: Path, receivers: str) -> None:
    """Send SIGTERM to a job that was submitted from `folder` with `HELD_START`, until its start is recorded.

    Args:
        receivers: `--full`, all of its processes, or `--batch`, its script; as scancel has them.
    """
    run = find_run(folder)
    end = time.monotonic() + HUNG_SECONDS
    while not (record := read_job_record(run)) or not record.starts:
        if time.monotonic() > end:
            raise TimeoutError(f"no start of a job: {run}")
        if (folder / "begun").exists():
            # The first signal ends what waits; the next ones come while the start is reported.
            assert record is not None
            subprocess.run(["scancel", "--signal=TERM", receivers, record.id], check=True)
            (folder / "sent").touch()
        time.sleep(0.2)


def wait_for_end(attempt: Attempt, seconds: float = HUNG_SECONDS) -> bool:
    """Return True once an attempt is over, False if it takes longer."""
    end = time.monotonic() + seconds
    while not attempt.is_over():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def find_run(folder: Path) -> Path:
    """Return the only run of a folder."""
    (path,) = folder.glob("runs/*/*/run.json")
    return path.parent


@contextlib.contextmanager
def start_cluster() -> Iterator[None]:
    """Start the cluster of `scripts/mini_slurm.sh` in a temporary folder, and let SLURM's commands find it."""
    kept = dict(os.environ)
    # Not among the trials, which may lie deep: its sockets have paths of at most 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    os.environ.update({"BASE": str(folder), "SLURM_CONF": str(folder / "etc/slurm.conf")})
    script = ["bash", str(ROOT / "scripts/mini_slurm.sh")]
    try:
        subprocess.run([*script, "up"], check=True)
        yield
    finally:
        subprocess.run([*script, "down"], check=False)
        os.environ.clear()
        os.environ.update(kept)
        shutil.rmtree(folder, ignore_errors=True)
