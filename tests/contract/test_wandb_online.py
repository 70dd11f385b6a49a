"""The real W&B client against a server of our own: what it is told, what it is not, and that nothing else is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.contract.commands import environment, mlscale, only_run
from tests.contract.fake_wandb import FakeWandb

SECRET = "planted-in-the-config"
NO_WAY_OUT = """
import socket

connect = socket.socket.connect


def loopback_only(self, address):
    local = not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")
    if not local:
        open("way-out", "a").write(f"{address}\\n")
        raise OSError("no way out")
    return connect(self, address)


socket.socket.connect = loopback_only
"""
SETTINGS = [
    "debug=fast",
    "logger=[csv,wandb]",
    "name=mine",
    "tags=[a,b]",
    "notes=why",
    "logger.wandb.project=p",
    "logger.wandb.entity=team",
    "logger.wandb.group=g",
]


def test_a_run_is_reported_as_it_is(tmp_path: Path) -> None:
    with FakeWandb() as server:
        done = mlscale(tmp_path, *SETTINGS, env=environment(tmp_path, **server.env()))
    assert done.returncode == 0, done.stderr
    (run,) = server.runs.values()
    assert (run["modelName"], run["entityName"], run["groupName"]) == ("p", "team", "g")
    assert (run["displayName"], run["tags"], run["notes"]) == (only_run(tmp_path).name, ["a", "b"], "why")
    assert run["state"] == "finished"
    assert run["cfg"]["optimizer"]["value"]["_target_"] == "torch.optim.SGD"
    with (only_run(tmp_path) / "logs/metrics.csv").open() as file:
        names = set(csv.DictReader(file).fieldnames or ())
    sent = {key for row in run["history"] for key in row if not key.startswith("_") and key != "trainer/global_step"}
    assert "val/accuracy" in sent
    assert sent - {"epoch"} <= names
    assert run["console"] == []
    uploaded = {Path(path).name for path in server.files}
    assert uploaded <= {"config.yaml", "wandb-summary.json"}, uploaded
    assert "offline" not in done.stderr


def test_a_failure_is_reported_and_secrets_are_not(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "from torch import nn\n\n\nclass Failing(nn.Linear):\n"
        "    def __init__(self, password: str) -> None:\n        super().__init__(64, 10)\n\n"
        "    def forward(self, x):\n        raise ValueError('no')\n"
    )
    words = ["model=none", "model._target_=failing.Failing", f"model.password={SECRET}"]
    with FakeWandb() as server:
        done = mlscale(tmp_path, *SETTINGS, *words, env=environment(tmp_path, **server.env()))
    assert done.returncode != 0
    (run,) = server.runs.values()
    assert run["state"] == "failed"
    assert SECRET not in json.dumps(run)
    assert not any(SECRET.encode() in content for content in server.files.values())


def test_without_a_tracker_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_WAY_OUT)
    env = environment(tmp_path)
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    done = mlscale(tmp_path, "debug=fast", "logger=csv", env=env)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "way-out").exists()


@pytest.mark.slow
def test_the_jobs_of_a_sweep_are_a_group(tmp_path: Path) -> None:
    words = ["-m", "debug=fast", "logger=wandb", "seed=1,2"]
    with FakeWandb() as server:
        done = mlscale(tmp_path, *words, env=environment(tmp_path, **server.env()))
    assert done.returncode == 0, done.stderr
    (sweep,) = tmp_path.glob("runs/*/*/sweep.json")
    assert [run["groupName"] for run in server.runs.values()] == [sweep.parent.name] * 2
    assert [run["state"] for run in server.runs.values()] == ["finished"] * 2
