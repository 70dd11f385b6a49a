"""Tasks for SkyPilot: recovered after exit code 75, on a mounted bucket, values quoted, no secrets."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlscale.errors import MLScaleError
from mlscale.launch.cloud import PLATFORMS, read_cloud_settings, render_yaml
from mlscale.launch.skypilot import SkyPilotSettings, build_task, render_run_command
from mlscale.runs.job_record import JobRecord
from tests.unit.launch.cloud_jobs import make_job, read_launch

HOSTILE = 'a\'b "c" $(touch broken) `touch broken`; touch broken #'
CHECK = """
import json, sys, sky
from click.testing import CliRunner
from sky.client.cli import command
# Options are parsed before --help ends the command: an unknown one is refused.
for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(command.cli, [*words[1:], "--help"])
    assert done.exit_code == 0, (words, done.output)
task = sky.Task.from_yaml_str(sys.stdin.read())
(resources,) = task.resources
codes = resources.job_recovery["recover_on_exit_codes"]
print(task.num_nodes, codes, sorted(task.file_mounts), list(task.storage_mounts))
"""


def render(run: Path, **values: Any) -> dict[str, Any]:
    launch = read_launch("skypilot", **{"bucket": "s3://runs", "nodes": 2, "setup": ["pip install ."], **values})
    task = build_task(make_job(run), read_cloud_settings(SkyPilotSettings, launch, 4, "runs", []), run)
    document = yaml.safe_load(render_yaml(task))
    assert isinstance(document, dict)
    return document


def test_a_job_is_recovered_after_it_has_saved(tmp_path: Path) -> None:
    task = render(tmp_path / "run", accelerators="A100:4", max_failures=5)
    assert task["resources"] == {
        "accelerators": "A100:4",
        "use_spot": True,
        "job_recovery": {"max_restarts_on_errors": 5, "recover_on_exit_codes": [75]},
    }
    assert task["num_nodes"] == 2
    assert task["file_mounts"]["/mnt/mlscale"] == {"source": "s3://runs", "mode": "MOUNT_CACHED"}
    assert task["file_mounts"]["/tmp/mlscale-run/config.yaml"] == str(tmp_path / "run/config.yaml")


def test_no_package_of_others_is_installed(tmp_path: Path) -> None:
    assert render(tmp_path / "run")["setup"] == "pip install .\n"
    assert "setup" not in render(tmp_path / "run", setup=[], image="docker:me/mlscale")
    with pytest.raises(MLScaleError, match="nothing installs mlscale on the machines of the job"):
        render(tmp_path / "run", setup=[])


def test_secrets_have_no_value(tmp_path: Path) -> None:
    assert render(tmp_path / "run", variables=["WANDB_API_KEY"])["secrets"] == {"WANDB_API_KEY": None}


def test_the_shell_gets_every_value_as_it_is(tmp_path: Path) -> None:
    command = render_run_command(make_job(tmp_path / "run", runs_dir=f"/mnt/{HOSTILE}"))
    (tmp_path / "python").write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    (tmp_path / "python").chmod(0o755)
    variables = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    environment = {**variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True)
    words = done.stdout.splitlines()
    assert f"runs_dir=/mnt/{HOSTILE}" in words
    assert {"--nnodes=2", "--node-rank=1", "--nproc-per-node=4", "--master-addr=10.0.0.1"} <= set(words)
    assert not (tmp_path / "broken").exists()


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_the_model_of_skypilot_accepts_them(tmp_path: Path) -> None:
    # In an environment of its own: it requires a hundred packages, in versions that are not those of this project.
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "skypilot>=0.12"], check=True)
    task = render(tmp_path / "run", variables=["KEY"], env={"A": "1"}, accelerators="A100:4", cpu="8+", mem="64+")
    environment = {**os.environ, "HOME": str(tmp_path)}
    job = JobRecord("skypilot", "skypilot", "resnet-1", "", "", 0, 3, variables=("HOME",))
    commands = [
        shlex.split(PLATFORMS["skypilot"].format_command(action, job, tmp_path))
        for action in ("submit", "logs", "cancel")
    ]
    done = subprocess.run(
        [python, "-c", CHECK, json.dumps(commands)], input=render_yaml(task), env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    mounts = [f"/tmp/mlscale-run/{name}" for name in ("config.yaml", "derived.yaml", "run.json")]
    assert done.stdout.strip().splitlines()[-1] == f"2 [75] {mounts} ['/mnt/mlscale']"
