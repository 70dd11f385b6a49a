"""`mlscale drill` as a user runs it: real processes, ended by a platform's rules and started again."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract.commands import ROOT, mlscale

SHORT = ["+recipe=resnet", "model=mlp", "trainer.max_epochs=1", "callbacks.checkpoint.every_n_steps=3", "stop_step=5"]
SHORT += ["steps_after=2", "output=json"]


def drill(folder: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    # A platform gives its job a few variables alone: what the job caches is in its home folder.
    home = folder / "home"
    home.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), **variables}
    return mlscale(folder, "drill", *SHORT, *words, env=env, timeout=800)


def read_result(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pod_resumes_on_two_processes_and_another_host(folder: Path) -> None:
    done = drill(folder, "launch=kubernetes", "launch.claim=runs", "launch.grace_s=120", "report=seen")
    result = read_result(done)
    assert done.returncode == 0, result["sentence"]
    assert "started   and ended, by SIGTERM: exit code 75 after " in done.stderr
    assert result["metrics"]["lost_steps"] == 0
    assert result["metrics"]["killed_step"] == result["metrics"]["resumed_step"] == 5
    assert "resumed on 2 processes in place of 1" in result["sentence"]
    assert json.loads((folder / "seen/drill.json").read_text())["ok"] is True
    assert "120" in (folder / "seen/drill.html").read_text()
    assert not (folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_several_faults_are_named_together(folder: Path) -> None:
    words = ["launch=kubernetes", "launch.grace_s=120", "restart_devices=3", "notes=${oc.env:DRILL_VARIABLE}"]
    done = drill(folder, *words, DRILL_VARIABLE="something")
    result = read_result(done)
    assert done.returncode == 4
    assert [finding["kind"] for finding in result["details"]["findings"]] == ["secret", "folder", "size"]
    assert result["metrics"]["resumed_step"] == 0
    assert "launch.variables=[DRILL_VARIABLE]" in result["sentence"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_spot_instance_loses_what_follows_its_last_checkpoint(folder: Path) -> None:
    done = drill(folder, "launch=skypilot", "launch.bucket=s3://runs", "restart_devices=1")
    result = read_result(done)
    assert done.returncode == 0, result["sentence"]
    assert result["metrics"]["lost_steps"] == 2
    assert "bitwise identical" in result["sentence"]


def test_a_launch_that_ends_no_jobs_is_refused(folder: Path) -> None:
    done = drill(folder)
    assert done.returncode == 2
    assert "launch=local ends no jobs" in done.stderr
    assert "fix:   launch=slurm" in done.stderr
