"""A real SLURM cluster of four nodes on this machine, and runs on it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlscale.runs.job_record import JobRecord, read_job_record
from tests.conftest import runs_in

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 240.0  # the longest wait for anything; an idle machine takes a tenth of it


@dataclass
class Cluster:
    """The cluster.

    Attributes:
        base: the folder of its daemons.
        environment: in which SLURM's programs find it.
    """

    base: Path
    environment: dict[str, str] = field(default_factory=dict)

    def control(self, *words: str) -> None:
        """Call scripts/mini_slurm.sh."""
        subprocess.run(["bash", str(ROOT / "scripts/mini_slurm.sh"), *words], env=self.environment, check=True)

    def call(self, *words: str) -> str:
        """What a program of SLURM prints."""
        done = subprocess.run(words, env=self.environment, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()


@dataclass
class Site:
    """A working folder from which runs are submitted.

    Attributes:
        cluster: the cluster that trains them.
        folder: the working folder.
    """

    cluster: Cluster
    folder: Path

    def call(
        self, *words: str, code: int = 0, prefix: Sequence[str] = (), variables: Mapping[str, str] | None = None
    ) -> str:
        """Run mlscale in an interpreter of its own; returns what it printed on both streams."""
        command = [*prefix, sys.executable, "-m", "mlscale", *words]
        environment = {**self.cluster.environment, "PYTHONPATH": str(ROOT), **(variables or {})}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=_SECONDS
        )
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        return text

    @property
    def recipe(self) -> list[str]:
        """A run of 66 steps, which `be_slow` slows down to over a minute."""
        return [
            "+recipe=resnet", "model=mlp", "snapshot=false", "trainer.accelerator=cpu", "trainer.max_epochs=3",
            "callbacks.checkpoint.every_n_steps=5", "callbacks=[default]",
            f"+callbacks.pace={{_target_:tests.slurm.pace.Pace,folder:{self.folder}}}",
        ]  # fmt: skip

    def submit(self, *more: str, variables: Mapping[str, str] | None = None) -> Path:
        """Submit a run; returns its folder."""
        self.call(*self.recipe, "launch=slurm", "launch.grace_s=20", *more, variables=variables)
        return self.find_run()

    def find_run(self) -> Path:
        """The only run of this folder."""
        (run,) = runs_in(self.folder)
        return run

    def be_slow(self) -> None:
        """Slow down the steps of all runs."""
        (self.folder / "slow").touch()

    def wait_for_steps(self) -> None:
        """Wait until the current start of a run has done a step; the next one is waited for anew."""
        wait_until(lambda: (self.folder / "stepping").exists(), "a step")
        (self.folder / "stepping").unlink()

    def be_quick(self) -> None:
        """Let the steps be as quick as they are."""
        (self.folder / "slow").unlink(missing_ok=True)

    def wait_for_end(self, run: Path) -> JobRecord:
        """Wait until the job of a run has left the queue; returns its record."""
        job = read_record(run).id
        wait_until(lambda: job not in self.cluster.call("squeue", "-h", "-r", "-o", "%i").split(), f"the end of {job}")
        return read_record(run)


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    end = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < end, f"no {what} within {_SECONDS} s"
        time.sleep(0.2)


def read_record(run: Path) -> JobRecord:
    """The record of a run's job."""
    record = read_job_record(run)
    assert record is not None
    return record


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON file."""
    document: Mapping[str, Any] = json.loads(path.read_text())
    return document


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, started once."""
    if shutil.which("slurmctld") is None or shutil.which("slurmd") is None or os.geteuid() != 0:
        pytest.skip("needs root and the packages slurmctld, slurmd and slurm-client")
    base = tmp_path_factory.mktemp("slurm")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "MLSCALE_JOB"))}
    home = base / "home"  # jobs have only a few variables: what they cache lies in their home folder
    home.mkdir()
    slurm = {"BASE": str(base), "SLURM_CONF": str(base / "etc/slurm.conf"), "HOME": str(home)}
    started = Cluster(base, {**kept, **slurm})
    try:
        started.control("up")
        yield started
    finally:
        started.control("down")


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A working folder, and an empty queue before and after."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    yield Site(cluster, tmp_path)
    cluster.call("scancel", "--user=root")
    wait_until(lambda: not cluster.call("squeue", "-h"), "empty queue")


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the same training, on this machine and without an interruption."""
    site = Site(cluster, tmp_path_factory.mktemp("undisturbed"))
    site.call(*site.recipe)
    return site.find_run()
