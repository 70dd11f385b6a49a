"""A run on Kubernetes or SkyPilot: submitted, listed, printed, cancelled, submitted again; never trained here."""

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
    bin_folder = tmp_path / "bin"
    context = {"config*": "prod\n"}
    log = install_client(bin_folder, "kubectl", {**context, "apply*": "created"}, monkeypatch)
    assert main(POD) == 0
    (run,) = runs_in(folder)
    record = read_job_record(run)
    assert record is not None
    assert (record.scheduler, record.cluster) == ("kubernetes", "prod")
    assert record.id == f"team/{run.name}"
    item = {"metadata": {"name": run.name}, "status": {"jobsStatus": [{"ready": 1}]}}
    live = {"*get*": json.dumps({"items": [item]}), "*logs*": "step 5\n", "*delete*": "", "apply*": ""}
    install_client(bin_folder, "kubectl", live, monkeypatch)
    log.write_text("")
    assert list_status(capsys) == "running"
    assert main(["runs", "logs", "last"]) == 0
    assert main(["runs", "resume", "last"]) == 2
    assert "is running" in capsys.readouterr().err
    # Neither by its name nor as the last unfinished run of this config.
    assert main(["train", f"resume={run}"]) == 2
    assert "is trained by a job on Kubernetes" in capsys.readouterr().err
    assert find_newest_run(RunFolder.open(run).run["config_hash"], None, folder / "runs") is None
    assert main(["runs", "cancel", "last"]) == 0
    install_client(bin_folder, "kubectl", {**live, "*get*": '{"items": []}'}, monkeypatch)
    assert list_status(capsys) == "cancelled"
    log.write_text("")
    assert main(["runs", "resume", "last", "trainer.devices=2"]) == 2
    assert "leave them out" in capsys.readouterr().err
    assert main(["runs", "resume", "last"]) == 0
    at = "kubectl --context=prod --namespace=team"
    changes = [line for line in log.read_text().splitlines() if "delete" in line or "apply" in line]
    # What the first submission has left makes way: an ended job is not started by `apply`.
    assert changes == [
        f"{at} delete trainjobs.trainer.kubeflow.org {run.name} --ignore-not-found --wait",
        # In the context of the job, whatever the current one is by now.
        f"kubectl --context=prod apply -f {run}/kubernetes.yaml",
    ]
    assert list_status(capsys) == "vanished"  # not cancelled any more


def test_a_run_on_skypilot(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = install_client(tmp_path / "bin", "sky", {"*": ""}, monkeypatch)
    assert main(SKY) == 0
    (run,) = runs_in(folder)
    jobs = [{"job_id": 1, "job_name": run.name, "status": "RECOVERING"}]
    install_client(tmp_path / "bin", "sky", {"*queue*": json.dumps(jobs)}, monkeypatch)
    assert list_status(capsys) == "requeued"
    assert main(["runs", "logs", "last", "follow=true"]) == 0
    assert main(["runs", "cancel", "last"]) == 0
    jobs[0]["status"] = "CANCELLED"
    install_client(tmp_path / "bin", "sky", {"*queue*": json.dumps(jobs)}, monkeypatch)
    assert main(["runs", "resume", "last"]) == 0
    calls = [line for line in log.read_text().splitlines() if "queue" not in line]
    launch = f"sky jobs launch --yes --detach-run --secret=HOME {run}/skypilot.yaml"
    assert calls == [
        launch, f"sky jobs logs --name={run.name} --follow", f"sky jobs cancel --name={run.name} --yes", launch,
    ]  # fmt: skip


def test_a_file_that_was_only_written_is_submitted_where_the_client_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main(SKY) == 0
    assert "written, not submitted" in capsys.readouterr().out
    assert list_status(capsys) == "written"
    assert main(["runs", "logs", "last"]) == 2
    assert main(["runs", "cancel", "last"]) == 2
    assert "it was not submitted from here" in capsys.readouterr().err
    log = install_client(tmp_path / "bin", "sky", {"*": "[]"}, monkeypatch)
    assert main(["runs", "resume", "last"]) == 0
    assert "jobs launch" in log.read_text()
    assert main(["runs", "rm", "last", "yes=true"]) == 0


def test_a_job_that_is_refused_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_client(tmp_path / "bin", "sky", {"*": ""}, monkeypatch)
    (tmp_path / "bin/sky").write_text("#!/bin/sh\necho 'no cloud is enabled' >&2\nexit 1\n")
    assert main(SKY) == 5
    assert "no cloud is enabled" in capsys.readouterr().err
    assert not runs_in(folder)
