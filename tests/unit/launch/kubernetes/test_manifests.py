"""Manifests for Kubeflow Trainer: a job that is replaced after exit code 75, values that stay values, no secrets."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlscale.errors import MLScaleError
from mlscale.launch.cloud import read_cloud_settings
from mlscale.launch.kubernetes import KubernetesSettings, build_manifests, render_manifests
from tests.unit.launch.cloud_jobs import make_job, read_launch

HOSTILE = "x: y # 'z' \"$(HOME)\" ${A} {{b}} \\ - [1]"


def render(run: Path, **values: Any) -> list[dict[str, Any]]:
    launch = read_launch("kubernetes", image="a/b:1", claim="runs", nodes=2, **values)
    settings = read_cloud_settings(KubernetesSettings, launch, 4, "runs", [])
    return list(yaml.safe_load_all(render_manifests(build_manifests(make_job(run), settings))))


def test_a_job_is_replaced_after_it_has_saved_and_after_an_eviction(tmp_path: Path) -> None:
    start, runtime, job = render(tmp_path / "run", max_failures=2, grace_s=90)
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    codes, conditions = spec["podFailurePolicy"]["rules"]
    assert codes == {
        "action": "Ignore",
        "onExitCodes": {"containerName": "node", "operator": "In", "values": [75]},
    }
    assert conditions["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert spec["backoffLimit"] == 4
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 90)
    assert runtime["spec"]["mlPolicy"] == {"numNodes": 2, "torch": {}}
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["trainer"] == {"numNodes": 2, "numProcPerNode": 4}
    assert start["data"].keys() == {"run.json", "config.yaml", "derived.yaml"}


def test_a_pod_resumes_the_frozen_run_on_the_volume(tmp_path: Path) -> None:
    container = read_container(render(tmp_path / "run", cpu="8", mem="64Gi", shared_memory="8Gi"))
    assert container["command"] == [
        "python", "-m", "mlscale.launch.external.elastic_agent", "-m", "mlscale", "train", "like=/mlscale/run",
        "runs_dir=/mnt/mlscale/runs", "resume=auto", "trust=true", "trainer.devices=4",
    ]  # fmt: skip
    wanted = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert container["resources"] == {"requests": wanted, "limits": wanted}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/mnt/mlscale", "/mlscale/run", "/dev/shm"}


def test_values_stay_values(tmp_path: Path) -> None:
    manifests = render(tmp_path / "run", env={"NOTE": HOSTILE}, node_selector={"a/b": HOSTILE}, secret_name="s: t")
    pod = read_pod(manifests)
    # Kubernetes reads $$( as $(, and expands nothing.
    assert pod["containers"][0]["env"] == [{"name": "NOTE", "value": HOSTILE.replace("$(", "$$(")}]
    assert pod["nodeSelector"] == {"a/b": HOSTILE}
    assert len(manifests) == 3


def test_values_of_other_types_are_written_as_yaml_does(tmp_path: Path) -> None:
    manifests = render(tmp_path / "run", env={"A": True, "B": 3}, node_selector={"spot": True})
    assert [item["value"] for item in read_container(manifests)["env"]] == ["true", "3"]
    assert read_pod(manifests)["nodeSelector"] == {"spot": "true"}


@pytest.mark.parametrize("group", [1000, 0, None])
def test_a_user_who_is_not_root_may_write_to_the_volume(tmp_path: Path, group: int | None) -> None:
    context = read_pod(render(tmp_path / "run", fs_group=group)).get("securityContext")
    assert context == (None if group is None else {"fsGroup": group, "fsGroupChangePolicy": "OnRootMismatch"})


def test_secrets_are_references(tmp_path: Path) -> None:
    container = read_container(render(tmp_path / "run", variables=["WANDB_API_KEY"], secret_name="keys"))
    reference = {"secretKeyRef": {"name": "keys", "key": "WANDB_API_KEY"}}
    assert container["env"] == [{"name": "WANDB_API_KEY", "valueFrom": reference}]


def test_a_queue_is_a_label(tmp_path: Path) -> None:
    assert render(tmp_path / "run", queue="team")[2]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"


def test_a_frozen_run_that_no_configmap_holds_is_refused(tmp_path: Path) -> None:
    settings = read_cloud_settings(KubernetesSettings, read_launch("kubernetes", image="a", claim="b"), 1, "runs", [])
    job = make_job(tmp_path / "run")
    (job.run / "config.yaml").write_text("x" * (1 << 20))
    with pytest.raises(MLScaleError, match="a ConfigMap at most 1,048,576"):
        build_manifests(job, settings)


@pytest.mark.slow
def test_the_models_of_kubeflow_trainer_accept_them(tmp_path: Path) -> None:
    from kubeflow_trainer_api import models

    values: dict[str, Any] = {"variables": ["KEY"], "env": {"A": "1"}, "shared_memory": "1Gi", "queue": "team"}
    _, runtime, job = render(tmp_path / "run", **values, node_selector={"a": "b"}, cpu="1", mem="1Gi")
    for model, document in ((models.TrainerV1alpha1TrainingRuntime, runtime), (models.TrainerV1alpha1TrainJob, job)):
        read = model.from_dict(document)
        assert read is not None
        # The models leave out what they do not know: nothing may be missing.
        assert read.to_dict() == document


def read_pod(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (replicated,) = manifests[1]["spec"]["template"]["spec"]["replicatedJobs"]
    pod: dict[str, Any] = replicated["template"]["spec"]["template"]["spec"]
    return pod


def read_container(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (container,) = read_pod(manifests)["containers"]
    assert isinstance(container, dict)
    return container
