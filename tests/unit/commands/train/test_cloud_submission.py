"""A run on Kubernetes or SkyPilot: submitted once, and listed; never trained here."""

import json
from pathlib import Path

import pytest

from mlscale.cli import main
from mlscale.runs.find import find_newest_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import read_job_record
from tests.conftest import runs_in
from tests.unit.launch.cloud.clients import install_client

TRAIN = ["+recipe=resnet", "model=mlp", "snapshot=false", "trainer.accelerator=cpu"]
POD = [*TRAIN, "launch=kubernetes", "launch.image=i:1", "launch.claim=runs", "launch.namespace=team"]
SKY = [
    *TRAIN,
    "launch=skypilot",
    "launch.bucket=s3://runs",
    "launch.image=docker:me/mlscale",
    "launch.variables=[HOME]",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def list_status(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["runs", "ls", "output=json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    return str(run["status"])


def test_a_run_on_kubernetes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = install_client(tmp_path / "bin", "kubectl", {"apply*": "created"}, monkeypatch)
    assert main(POD) == 0
    (run,) = runs_in(folder)
    record = read_job_record(run)
    assert record is not None
    assert (record.scheduler, record.id) == ("kubernetes", f"team/{run.name}")
    assert log.read_text() == f"kubectl apply -f {run}/kubernetes.yaml\n"
    assert list_status(capsys) == "submitted"
    at = "kubectl --namespace=team"
    for words, command in (
        (["runs", "logs", "last"], f"{at} logs --follow"),
        (["runs", "cancel", "last"], f"{at} delete trainjobs.trainer.kubeflow.org {run.name}"),
        (["runs", "resume", "last"], f"{at} delete trainjobs.trainer.kubeflow.org {run.name} --ignore-not-found &&"),
        # Neither by its name nor as the last unfinished run of this config.
        (["train", f"resume={run}"], f"kubectl apply -f {run}/kubernetes.yaml"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "is trained by a job on Kubernetes" in error
        assert command in error
    assert find_newest_run(RunFolder.open(run).run["config_hash"], None, folder / "runs") is None
    assert log.read_text().count("\n") == 1


def test_a_run_on_skypilot(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = install_client(tmp_path / "bin", "sky", {"*": ""}, monkeypatch)
    assert main(SKY) == 0
    (run,) = runs_in(folder)
    assert log.read_text() == f"sky jobs launch --yes --detach-run --secret=HOME {run}/skypilot.yaml\n"
    assert f"sky jobs logs --name={run.name} --follow" in capsys.readouterr().out


def test_a_file_that_was_only_written_is_submitted_where_the_client_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main(SKY) == 0
    assert "written, not submitted: sky is not installed here" in capsys.readouterr().out
    assert list_status(capsys) == "written"
    assert main(["runs", "rm", "last", "yes=true"]) == 0


def test_a_job_that_is_refused_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_client(tmp_path / "bin", "sky", {"*": ""}, monkeypatch)
    (tmp_path / "bin/sky").write_text("#!/bin/sh\necho 'no cloud is enabled' >&2\nexit 1\n")
    assert main(SKY) == 5
    assert "no cloud is enabled" in capsys.readouterr().err
    assert not runs_in(folder)
