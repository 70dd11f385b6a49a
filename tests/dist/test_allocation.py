"""`mlscale env` by torchrun on loopback: three processes, one of them slow or silent; and by srun's variables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.commands import ROOT

# The same command, with a process whose links are slow.
SLOW = """
import os, sys, time
from mlscale import cli
from mlscale.commands.env import link_times

reduce_once = link_times.reduce_once

def reduce_slowly(payload, group):
    began = time.perf_counter()
    time.sleep(0.4)
    reduce_once(payload, group)
    return time.perf_counter() - began

if os.environ["RANK"] == "2":
    link_times.reduce_once = reduce_slowly
sys.exit(cli.main(sys.argv[1:]))
"""


BUSY = ("links", "cores")  # they are slow on a machine that has other things to do
# The same command, with a process that hangs once it has come.
HANGING = """
import os, signal, subprocess, sys
from mlscale import cli
from mlscale.commands.env import allocation_facts

publish_facts = allocation_facts.publish_facts

def hang(*facts):
    publish_facts(*facts)
    if os.environ["SLURM_PROCID"] == "2":
        os.kill(os.getpid(), signal.SIGSTOP)

allocation_facts.publish_facts = hang
sys.exit(cli.main(sys.argv[1:]))
"""


def run_env(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command = [*agent, "--nproc-per-node=3", *words, "output=json", "timeout_s=120"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_processes_of_one_machine_are_compared(tmp_path: Path) -> None:
    done = run_env(tmp_path, "-m", "mlscale", "env", f"runs_dir={tmp_path}/runs")
    report = json.loads(done.stdout)
    wrong = [check["says"] for check in report["checks"] if not check["ok"] and check["option"] not in BUSY]
    assert wrong == [], done.stderr
    assert [link["ranks"] for link in report["links"]] == [[0, 1], [0, 2], [1, 2]]
    assert all(link["all_reduce_s"] > 0 for link in report["links"])
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.slow
def test_a_slow_process_is_named(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    done = run_env(tmp_path, str(tmp_path / "slow.py"), "env", f"runs_dir={tmp_path}")
    checks = {check["option"]: check for check in json.loads(done.stdout)["checks"]}
    assert not checks["links"]["ok"], done.stderr
    assert checks["links"]["says"].startswith("rank 2 on ")
    assert done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["missing", "silent"])
def test_a_missing_and_a_silent_process_are_named_alone_and_all_others_end(tmp_path: Path, fault: str) -> None:
    """As srun starts four processes on two nodes; it is not needed itself."""
    (tmp_path / "hanging.py").write_text(HANGING)
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4",
            "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "MASTER_ADDR": "127.0.0.1",
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # fmt: skip
    words = [sys.executable, str(tmp_path / "hanging.py"), "env", f"runs_dir={tmp_path}/runs", "timeout_s=15"]
    processes = {}
    for rank in (0, 1, 2, 3):
        if (fault, rank) != ("missing", 2):
            own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % 2), "SLURMD_NODENAME": f"a{1 + rank // 2}"}
            env = {**os.environ, **step, **own}
            processes[rank] = subprocess.Popen(
                [*words, "output=json"], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
    outputs = {rank: process.communicate(timeout=120) for rank, process in processes.items() if rank != 2}
    for process in processes.values():  # also the one that hangs
        process.kill()
        process.communicate()
    wrong = {check["option"]: check for check in json.loads(outputs[0][0])["checks"] if not check["ok"]}
    expected = (
        "rank 2 of 4 did not come (a2, 1 of 2)" if fault == "missing" else "rank 2 on a2 came and stopped answering"
    )
    assert wrong["processes"]["says"] == expected
    assert set(wrong) <= {"processes", *BUSY}
    assert [processes[rank].returncode for rank in (0, 1, 3)] == [5, 0, 0], outputs
