"""Jobs on Kubernetes and SkyPilot: their states, and the commands that are to be typed for them."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.cloud import PLATFORMS, run_client
from mlscale.launch.scheduled_jobs import describe_run_status, find_job_states
from mlscale.launch.slurm.job_states import JobState
from mlscale.runs.job_record import JobRecord

POD = JobRecord("kubernetes", "kubernetes", "team/resnet-1", "2026-11-29T04:00:00+00:00", "", 0, 3)
TASK = JobRecord("skypilot", "skypilot", "resnet-2", "2026-11-29T04:00:00+00:00", "", 0, 3, variables=("KEY",))


def test_a_job_on_a_cloud_is_submitted_or_written() -> None:
    states = find_job_states([POD, replace(TASK, cluster="")])
    assert states == {"team/resnet-1": JobState("submitted"), "resnet-2": JobState("written")}
    assert describe_run_status("queued", POD, states[POD.id]) == "submitted"
    assert describe_run_status("queued", TASK, states[TASK.id]) == "written"


def test_commands_name_the_job_and_the_variables_of_its_secrets() -> None:
    pod, task, run = PLATFORMS["kubernetes"], PLATFORMS["skypilot"], Path("runs/a b")
    kubectl = "kubectl --namespace=team delete trainjobs.trainer.kubeflow.org resnet-1"
    assert pod.format_command("cancel", POD, run) == kubectl
    assert pod.format_command("resume", POD, run).endswith(" && kubectl apply -f 'runs/a b/kubernetes.yaml'")
    assert "jobset-name=resnet-1," in pod.format_command("logs", POD, run)
    assert task.format_command("cancel", TASK, run) == "sky jobs cancel --name=resnet-2 --yes"
    assert task.format_command("submit", TASK, run).endswith("--secret=KEY 'runs/a b/skypilot.yaml'")


def test_a_client_that_fails_is_quoted() -> None:
    with pytest.raises(MLScaleError, match="sh ended with exit code 3") as raised:
        run_client("sh -c 'echo no cloud is enabled >&2; exit 3'")
    assert (raised.value.exit, raised.value.why) == (Exit.ENVIRONMENT, "no cloud is enabled")
