"""Jobs on Kubernetes and SkyPilot: their states from what the clients print, and what a run of theirs excludes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.cloud import run_client
from mlscale.launch.job_state import JobState
from mlscale.launch.kubernetes import KubectlClient, parse_train_jobs
from mlscale.launch.scheduled_jobs import describe_run_status, find_job_states
from mlscale.launch.skypilot import SkyClient, parse_job_queue
from mlscale.runs.job_record import JobRecord
from tests.unit.launch.cloud.clients import install_client

POD = JobRecord("kubernetes", "prod", "team/resnet-1", "2026-11-29T04:00:00+00:00", "", 0, 3)
TASK = JobRecord("skypilot", "skypilot", "resnet-2", "2026-11-29T04:00:00+00:00", "", 0, 3)


def make_train_job(conditions: list[dict[str, str]], **counts: int) -> dict[str, Any]:
    job = {"name": "node", "active": 0, "failed": 0, "ready": 0, "succeeded": 0, "suspended": 0, **counts}
    return {"metadata": {"name": "resnet-1"}, "status": {"conditions": conditions, "jobsStatus": [job]}}


def make_condition(name: str, status: str = "True") -> dict[str, str]:
    return {
        "type": name, "status": status, "message": "why", "reason": "R", "lastTransitionTime": "2026-11-29T04:00:00Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "counts", "state"),
    [
        ([], {}, JobState("queued", "it has no pods yet")),
        ([], {"active": 1}, JobState("queued", "its pods are pending")),
        ([], {"active": 1, "ready": 1}, JobState("running")),
        ([make_condition("Suspended")], {"suspended": 1}, JobState("queued", "why")),
        ([make_condition("Suspended", "False")], {"active": 1, "ready": 1}, JobState("running")),
        ([make_condition("Failed")], {"failed": 1}, JobState("failed", "why")),
        ([make_condition("Suspended", "False"), make_condition("Complete")], {"succeeded": 1}, JobState("done", "why")),
    ],
)
def test_states_of_train_jobs(conditions: list[dict[str, str]], counts: dict[str, int], state: JobState) -> None:
    job = make_train_job(conditions, **counts)
    # Kubeflow's own model has these fields, or it refuses them.
    models = pytest.importorskip("kubeflow_trainer_api.models")
    status = models.TrainerV1alpha1TrainJobStatus.from_dict(job["status"])
    assert status.model_dump(mode="json", by_alias=True, exclude_none=True) == job["status"]
    assert parse_train_jobs(json.dumps({"items": [job, {"metadata": {"name": "new"}}]})) == {
        "resnet-1": state,
        "new": JobState("queued", "it has no pods yet"),
    }


def test_states_of_managed_jobs() -> None:
    names = ["PENDING", "RUNNING", "RECOVERING", "CANCELLING", "SUCCEEDED", "CANCELLED", "FAILED_NO_RESOURCE"]
    jobs = [{"job_id": number, "job_name": name, "status": name} for number, name in enumerate(names)]
    words = ["queued", "running", "requeued", "running", "done", "cancelled", "failed"]
    assert [state.word for state in parse_job_queue(json.dumps(jobs)).values()] == words


def test_of_several_submissions_of_a_run_the_last_one_counts() -> None:
    jobs = [{"job_id": 9, "job_name": "a", "status": "RUNNING"}, {"job_id": 3, "job_name": "a", "status": "FAILED"}]
    assert parse_job_queue(json.dumps(jobs)) == {"a": JobState("running")}


def test_a_cluster_gets_one_request_for_each_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = json.dumps({"items": [make_train_job([], ready=1)]})
    log = install_client(tmp_path / "bin", "kubectl", {"*": jobs}, monkeypatch)
    install_client(tmp_path / "bin", "sky", {"*": "[]"}, monkeypatch)
    other = replace(POD, id="team/forgotten")
    states = find_job_states([POD, other, replace(POD, cluster="test", id="mine/resnet-1"), TASK])
    assert states["team/resnet-1"] == states["mine/resnet-1"] == JobState("running")
    assert states["team/forgotten"].word == states["resnet-2"].word == "vanished"
    calls = log.read_text().splitlines()
    assert len(calls) == 2
    assert calls[0].startswith("kubectl --context=prod --namespace=team get trainjobs.trainer.kubeflow.org ")


def test_without_its_client_the_state_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_job_states([POD])["team/resnet-1"] == JobState("unknown", "kubectl is not installed here")
    assert describe_run_status("queued", POD, JobState("unknown")) == "queued"


def test_a_job_that_was_only_written_is_not_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    written = replace(POD, cluster="")
    assert describe_run_status("queued", written, find_job_states([written])[POD.id]) == "written"


@pytest.mark.parametrize(
    ("word", "shown"), [("requeued", "requeued"), ("done", "done"), ("failed", "failed"), ("vanished", "vanished")]
)
def test_status_of_a_run_on_a_cloud(word: str, shown: str) -> None:
    assert describe_run_status("queued", POD, JobState(word)) == shown
    assert describe_run_status("queued", replace(POD, cancelled="now"), JobState("vanished")) == "cancelled"


def test_a_client_that_does_not_respond_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_client(tmp_path / "bin", "sky", {}, monkeypatch)
    (tmp_path / "bin/sky").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(MLScaleError, match=r"sky did not finish within 0\.2 s") as raised:
        run_client(["sky", "jobs", "queue"], 0.2)
    assert raised.value.exit == Exit.ENVIRONMENT


def test_commands_name_the_job_and_its_cluster() -> None:
    kubectl, sky = KubectlClient(), SkyClient()
    at = ["kubectl", "--context=prod", "--namespace=team"]
    assert kubectl.build_cancel_words(POD)[:5] == [*at, "delete", "trainjobs.trainer.kubeflow.org"]
    log = kubectl.build_log_words(POD, follow=True)
    assert log[:3] == at
    assert log[-1] == "--follow"
    assert "jobset.sigs.k8s.io/jobset-name=resnet-1" in log[5]
    # The job's own secrets travel from this environment, by their names.
    assert sky.build_submit_words(Path("t.yaml"), ["KEY"])[-2:] == ["--secret=KEY", "t.yaml"]
    assert sky.build_log_words(TASK, follow=False) == ["sky", "jobs", "logs", "--name=resnet-2", "--no-follow"]
