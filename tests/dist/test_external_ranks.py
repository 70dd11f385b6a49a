"""Ranks that another launcher has started join one run: as elastic agents start them, torchrun, srun and mpirun."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from mlscale.cli import main
from scripts.same_run import differences
from tests.conftest import runs_in
from tests.dist import ranks
from tests.dist.pace import Pace, wait_for_mark
from tests.dist.test_two_ranks import launch

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["+recipe=resnet", "model=mlp", "snapshot=false", "callbacks.checkpoint.every_n_steps=5"]
SHORT = [*WORDS, "trainer.max_epochs=1", "+trainer.limit_train_batches=6"]
FAIL = "+callbacks.fail={_target_:tests.dist.recorder.KillOnce,step:%d,mark:%s,whom:%d}"
LIMIT = 10.0  # seconds until a dead rank has ended or restarted the run, where the cores are free
SLOW_DATA = """
import time
from pathlib import Path
from mlscale.data import Digits


class SlowDigits(Digits):
    def prepare_data(self):
        Path("preparing").touch()
        time.sleep(600)
"""
SECONDS = 240  # far below the minutes of a hang; a busy machine takes thirty


def test_ranks_that_an_agent_has_started_train_what_this_process_would(folder: Path) -> None:
    """Forked from the fork server of the tests: they join as torchrun's ranks do, and cost no imports."""
    assert main([*SHORT, "trainer.devices=2", "runs_dir=here"]) == 0
    first, second = launch(ranks.join, json.dumps([str(folder), *SHORT, "runs_dir=there"]))
    assert (first["code"], second["code"]) == (0, 0)
    assert "error" not in first["err"] + second["err"]
    assert first["out"].count("val/accuracy") > 0
    assert second["out"] == ""
    (here,), (there,) = runs_in(folder / "here"), runs_in(folder / "there")
    assert differences(here, there) == []
    assert json.loads((there / "manifest.json").read_text())["status"] == "done"


def test_an_error_of_the_config_is_printed_by_one_rank_and_ends_all(folder: Path) -> None:
    words = json.dumps([str(folder), *SHORT, "trainer.max_epoch=3"])
    first, second = launch(ranks.join, words)
    assert (first["code"], second["code"]) == (2, 2)
    assert "unknown key 'trainer.max_epoch'" in first["err"]
    assert second["err"] == ""
    assert not list(folder.iterdir())


@pytest.mark.parametrize("option", ["launch=slurm", "launch=torchrun"])
def test_several_ranks_submit_no_job_and_none_waits(folder: Path, option: str) -> None:
    words = json.dumps([str(folder), *SHORT, option, "trainer.accelerator=cpu", "launch.timeout_s=60"])
    first, second = launch(ranks.join, words)
    assert (first["code"], second["code"]) == (2, 2)
    assert f"{option} submits a job, and torchrun or a launcher like it has started 2 processes" in first["err"]
    assert second["err"] == ""
    assert not list(folder.iterdir())


def start(folder: Path, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        environment.pop(name, None)
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, **(env or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def torchrun(*flags: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *flags, "-m", "mlscale"]


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, out + err


def train_here(folder: Path, words: Sequence[str], name: str = "here") -> Path:
    code, printed = end(start(folder, sys.executable, "-m", "mlscale", *words, "trainer.devices=2", f"runs_dir={name}"))
    assert code == 0, printed
    (run,) = runs_in(folder / name)
    return run


def begin_of_attempt(run: Path, number: int) -> float:
    """When the last attempt began, which must have this number, from 0."""
    attempts = json.loads((run / "run.json").read_text())["attempts"]
    assert len(attempts) == number + 1
    return datetime.fromisoformat(attempts[number]["started"]).timestamp()


@pytest.mark.slow
def test_torchrun_two_torchruns_and_srun_give_the_weights_of_one_command(folder: Path) -> None:
    here = train_here(folder, SHORT)
    code, printed = end(start(folder, *torchrun("--standalone", "--nproc-per-node=2"), *SHORT, "runs_dir=one"))
    assert code == 0, printed
    node = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", "--master-port=29631"]
    pair = [start(folder, *torchrun(*node, f"--node-rank={rank}"), *SHORT, "runs_dir=two") for rank in (0, 1)]
    assert [end(each)[0] for each in pair] == [0, 0]
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost",
            "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_NODEID": "0"}  # fmt: skip
    tasks = [
        start(folder, sys.executable, "-m", "mlscale", *SHORT, "runs_dir=srun",
              env={**step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in (0, 1)
    ]  # fmt: skip
    assert [end(each)[0] for each in tasks] == [0, 0]
    for name in ("one", "two", "srun"):
        (run,) = runs_in(folder / name)
        assert differences(here, run) == [], name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed; .ci/run installs openmpi-bin")
def test_mpirun_gives_the_weights_of_one_command(folder: Path) -> None:
    here = train_here(folder, SHORT)
    mpirun = ["mpirun", "-n", "2", "--allow-run-as-root", "--oversubscribe", sys.executable, "-m", "mlscale"]
    code, printed = end(start(folder, *mpirun, *SHORT, "runs_dir=mpi"))
    assert code == 0, printed
    (run,) = runs_in(folder / "mpi")
    assert differences(here, run) == []


@pytest.mark.slow
def test_torchrun_restarts_a_killed_rank_and_the_run_ends_as_if_undisturbed(folder: Path) -> None:
    words = [*WORDS, "trainer.max_epochs=2"]
    here = train_here(folder, words)
    mark = folder / "killed"
    agent = torchrun("--standalone", "--nproc-per-node=2", "--max-restarts=2")
    process = start(folder, *agent, *words, FAIL % (30, mark, 1), "runs_dir=there")
    since = wait_for_mark(mark)
    pace = Pace()
    code, printed = end(process)
    assert code == 0, printed
    (there,) = runs_in(folder / "there")  # one run, resumed
    # The agent ends the other rank first, and both import torch again.
    assert begin_of_attempt(there, 1) - since < pace.allow_seconds(2 * LIMIT)
    assert differences(here, there) == []
    assert "bitwise identical" in printed


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_local_run_restarts_a_killed_rank(folder: Path, devices: int) -> None:
    words = [*WORDS, "trainer.max_epochs=2", f"trainer.devices={devices}", "launch.max_restarts=1"]
    mark = folder / "killed"
    process = start(folder, sys.executable, "-m", "mlscale", *words, FAIL % (30, mark, devices - 1))
    since = wait_for_mark(mark)
    pace = Pace()
    code, printed = end(process)
    assert code == 0, printed
    assert f"restart   1 of 1, after: rank {devices - 1} was killed by SIGKILL" in printed
    assert "resumed from step 30 bitwise identical" in printed
    (run,) = runs_in(folder)
    assert begin_of_attempt(run, 1) - since < pace.allow_seconds(LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1])
def test_a_dead_rank_ends_the_run_within_seconds_and_is_named(folder: Path, whom: int) -> None:
    mark = folder / "killed"
    agent = torchrun("--standalone", "--nproc-per-node=2", "--max-restarts=0")
    process = start(folder, *agent, *WORDS, "trainer.max_epochs=50", FAIL % (30, mark, whom))
    since = wait_for_mark(mark)
    pace = Pace()
    code, printed = end(process)
    assert time.time() - since < pace.allow_seconds(LIMIT)
    assert code == 1, printed  # torchrun's own
    assert printed.count("error: ") == 1, printed
    assert f"error: rank {whom} ended without a message" in printed
    assert "a bug of mlscale" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_the_launchers_signal_saves_and_every_rank_ends_with_75(folder: Path, signum: signal.Signals) -> None:
    step = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29641"}
    mark = folder / "started"
    words = [
        *WORDS,
        "trainer.max_epochs=100000",
        f"+callbacks.started={{_target_:tests.dist.recorder.Started,path:{mark}}}",
    ]
    both = [
        start(folder, sys.executable, "-m", "mlscale", *words, env={**step, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    deadline = time.monotonic() + SECONDS
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in both:
        process.send_signal(signum)
    (first, printed), (second, silent) = end(both[0]), end(both[1])
    assert (first, second) == (75, 75), printed + silent
    assert printed.count(f"error: stopped by {signum.name} after optimizer step ") == 1
    assert "error: " not in silent
    (run,) = runs_in(folder)
    state: dict[str, Any] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert f"after optimizer step {state['global_step']}, saved to" in printed


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_the_data_are_prepared_ends_every_rank_with_75(folder: Path, signum: signal.Signals) -> None:
    """Ranks as srun and mpirun start them: their exit codes are what starts the job again."""
    (folder / "slow_data.py").write_text(SLOW_DATA)
    step = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    step |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29671"}
    both = [
        start(folder, sys.executable, "-m", "mlscale", *SHORT, "data._target_=slow_data.SlowDigits",
              env={**step, "OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]  # fmt: skip
    deadline = time.monotonic() + SECONDS
    while not (folder / "preparing").exists():
        assert both[0].poll() is None, both[0].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for process in both:
        process.send_signal(signum)
    began = time.monotonic()
    (first, printed), (second, silent) = end(both[0]), end(both[1])
    assert (first, second) == (75, 75), printed + silent
    assert time.monotonic() - began < 25  # within a usual grace period; two seconds on an idle machine
    assert printed.count(f"error: stopped by {signum.name} before the first step") == 1
    assert "error: " not in silent
    assert not runs_in(folder)


@pytest.mark.slow
def test_a_size_that_does_not_divide_the_batch_names_one_that_does(folder: Path) -> None:
    step = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29651"}
    three = [
        start(folder, sys.executable, "-m", "mlscale", *SHORT, env={**step, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(3)
    ]
    ends = [end(each) for each in three]
    assert [code for code, _ in ends] == [2, 2, 2]
    assert "fix:   data.batch_size=63, or start 2 processes" in ends[0][1]
    assert not runs_in(folder)


@pytest.mark.slow
def test_a_folder_that_another_rank_does_not_see_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines without a shared file system: a rank in a mount namespace whose folder of runs is another one."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare -m is not permitted here")
    step = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29661"}
    (folder / "runs").mkdir()
    command = [sys.executable, "-m", "mlscale", *SHORT]
    hidden = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {folder}/runs && exec "$@"', "sh"]
    first = start(folder, *command, env={**step, "RANK": "0", "LOCAL_RANK": "0"})
    second = start(folder, *hidden, *command, env={**step, "RANK": "1", "LOCAL_RANK": "0"})
    (one, printed), (other, _) = end(first), end(second)
    assert (one, other) == (5, 5), printed
    assert "error: rank 1 does not see the run folder of rank 0" in printed
    assert "fix:   runs_dir=<a folder that all machines share>" in printed
    assert not runs_in(folder)  # nothing has run: a failed run would be a false lead
