"""`mlscale env` by torchrun on loopback: three processes, one of them slow."""

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


def run_env(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command = [*agent, "--nproc-per-node=3", *words, "output=json", "timeout_s=120"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_processes_of_one_machine_are_compared(tmp_path: Path) -> None:
    done = run_env(tmp_path, "-m", "mlscale", "env", f"runs_dir={tmp_path}/runs")
    report = json.loads(done.stdout)
    wrong = [check["says"] for check in report["checks"] if not check["ok"] and check["option"] != "links"]
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
