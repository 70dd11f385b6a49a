"""Render the manifests of a job for Kubeflow Trainer v2: what it starts from, a TrainingRuntime, and a TrainJob.

A pod that was stopped and has saved ends with exit code 75, and one that is evicted has the condition DisruptionTarget:
both are replaced without being counted as failures. `restartPolicy: Never` is what podFailurePolicy demands.
"""

from __future__ import annotations

from typing import Any

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.cloud.cloud_job import START_FILES, CloudJob
from mlscale.launch.cloud.job_yaml import render_scalar, render_yaml
from mlscale.launch.kubernetes.pod_settings import KubernetesSettings

Manifest = dict[str, Any]
TRAINER_API = "trainer.kubeflow.org/v1alpha1"
_CONTAINER = "node"  # the name that Trainer expects: it sets variables of torch in this container
_START_PATH = "/mlscale/run"
_MAX_BYTES = 1 << 20  # of a ConfigMap


def build_manifests(job: CloudJob, settings: KubernetesSettings) -> list[Manifest]:
    """Return the ConfigMap with the frozen run, the TrainingRuntime and the TrainJob, in the order of applying them.

    Raises:
        MLScaleError: the frozen run is larger than a ConfigMap may be.
    """
    return [_build_start_files(job, settings), _build_runtime(job, settings), _build_train_job(job, settings)]


def render_manifests(manifests: list[Manifest]) -> str:
    """Return manifests as one YAML text."""
    return "---\n".join(render_yaml(manifest) for manifest in manifests)


def _build_metadata(job: CloudJob, settings: KubernetesSettings) -> Manifest:
    labels = {"app.kubernetes.io/managed-by": "mlscale", "app.kubernetes.io/instance": job.name}
    return {"name": job.name, "namespace": settings.namespace, "labels": labels}


def _build_start_files(job: CloudJob, settings: KubernetesSettings) -> Manifest:
    data = {name: (job.run / name).read_text(encoding="utf-8") for name in START_FILES if (job.run / name).is_file()}
    size = sum(len(text.encode()) for text in data.values())
    if size > _MAX_BYTES:
        raise MLScaleError(
            f"the frozen run has {size:,} bytes, and a ConfigMap at most {_MAX_BYTES:,}",
            where=str(job.run),
            fix="long lists belong into a file of the image, not into the config",
        )
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _build_metadata(job, settings), "data": data}


def _build_runtime(job: CloudJob, settings: KubernetesSettings) -> Manifest:
    metadata = _build_metadata(job, settings)
    metadata["labels"]["trainer.kubeflow.org/framework"] = "torch"
    replicated = {
        "name": "node",
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            "spec": {
                # Counted over all pods of the job, each of which fails when one of them does.
                "backoffLimit": settings.max_failures * settings.nodes,
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "Ignore",
                            "onExitCodes": {
                                "containerName": _CONTAINER,
                                "operator": "In",
                                "values": [int(Exit.SAVED)],
                            },
                        },
                        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    ]
                },
                "template": {"spec": _build_pod(job, settings)},
            },
        },
    }
    return {
        "apiVersion": TRAINER_API,
        "kind": "TrainingRuntime",
        "metadata": metadata,
        "spec": {
            "mlPolicy": {"numNodes": settings.nodes, "torch": {}},
            "template": {"spec": {"replicatedJobs": [replicated]}},
        },
    }


def _build_pod(job: CloudJob, settings: KubernetesSettings) -> Manifest:
    # The runs outlive the pod; the frozen run is read alone.
    volumes: list[Manifest] = [
        {"name": "runs", "persistentVolumeClaim": {"claimName": settings.claim}},
        {"name": "start", "configMap": {"name": job.name}},
    ]
    if settings.shared_memory:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}})
    pod: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.grace_s,
        "containers": [_build_container(job, settings)],
        "volumes": volumes,
    }
    if settings.fs_group is not None:
        # A new volume belongs to root. Not changed file by file where its root has the group already.
        pod["securityContext"] = {"fsGroup": settings.fs_group, "fsGroupChangePolicy": "OnRootMismatch"}
    if settings.node_selector:
        pod["nodeSelector"] = {str(name): render_scalar(value) for name, value in settings.node_selector.items()}
    return pod


def _build_container(job: CloudJob, settings: KubernetesSettings) -> Manifest:
    agent = ["python", "-m", "mlscale.launch.external.elastic_agent", "-m", "mlscale"]
    command = [_keep_literal(word) for word in [*agent, *job.build_train_words(_START_PATH)]]
    mounts: list[Manifest] = [
        {"name": "runs", "mountPath": settings.volume_path},
        {"name": "start", "mountPath": _START_PATH, "readOnly": True},
    ]
    if settings.shared_memory:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - a mount of the pod
    container: Manifest = {
        "name": _CONTAINER,
        "image": settings.image,
        # Not by a shell, which would take the signal and not pass it on.
        "command": command,
        "env": _build_variables(settings),
        "volumeMounts": mounts,
    }
    if resources := _build_resources(job, settings):
        # Equal: a pod whose requests are its limits is evicted last.
        container["resources"] = {"requests": resources, "limits": dict(resources)}
    return container


def _build_variables(settings: KubernetesSettings) -> list[Manifest]:
    plain = [{"name": str(name), "value": _keep_literal(render_scalar(value))} for name, value in settings.env.items()]
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.secret_name, "key": name}}}
        for name in settings.variables
    ]
    return [*plain, *secret]


def _build_resources(job: CloudJob, settings: KubernetesSettings) -> dict[str, str]:
    wanted = {"cpu": settings.cpu, "memory": settings.mem}
    resources = {name: str(value) for name, value in wanted.items() if value}
    return resources | ({settings.gpu: str(job.devices)} if job.uses_gpus else {})


def _build_train_job(job: CloudJob, settings: KubernetesSettings) -> Manifest:
    # Kueue reads the label of the job, not of its pods.
    metadata = _build_metadata(job, settings)
    if settings.queue:
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = settings.queue
    return {
        "apiVersion": TRAINER_API,
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"apiGroup": TRAINER_API.partition("/")[0], "kind": "TrainingRuntime", "name": job.name},
            "trainer": {"numNodes": settings.nodes, "numProcPerNode": job.devices},
        },
    }


def _keep_literal(text: str) -> str:
    """Return a text that Kubernetes does not expand: `$(NAME)` in it would be replaced by a variable."""
    return text.replace("$(", "$$(")
