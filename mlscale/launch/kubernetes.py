"""Jobs on Kubernetes: their settings, and the manifests for Kubeflow Trainer v2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.cloud import (
    START_FILES,
    CloudJob,
    CloudSettings,
    check_scalars,
    render_scalar,
    render_yaml,
)

_QUANTITY = re.compile(r"\d+(\.\d*)?([KMGTPE]i|[mkMGTPE]|[eE]\d+)?")
_QUANTITIES = {"cpu": "8", "mem": "64Gi", "shared_memory": "8Gi"}  # keys, with an example of each
_LEAST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings(CloudSettings):
    """The settings of `launch=kubernetes`."""

    volume_key: ClassVar[str] = "claim"
    volume_fix: ClassVar[str] = "launch.claim=<PersistentVolumeClaim>"
    least: ClassVar[Mapping[str, int]] = {"nodes": 1, "grace_s": 1, "max_failures": 0}

    claim: str
    namespace: str = "default"
    secret_name: str = "mlscale"  # noqa: S105 - the name of a Secret
    fs_group: int | None = 1000
    gpu: str = "nvidia.com/gpu"
    shared_memory: str | None = None
    node_selector: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    grace_s: int = 60

    @classmethod
    def find_own_problems(cls, launch: Mapping[str, Any]) -> Iterator[MLScaleError]:
        if not launch["image"]:
            yield MLScaleError(
                "a pod needs an image",
                where="launch.image",
                why="it holds mlscale, your code and your recipes; docker/Dockerfile builds one from this folder",
                fix="launch.image=registry.example.com/train:1",
            )
        yield from check_scalars("node_selector", launch["node_selector"])
        for key, example in _QUANTITIES.items():
            if (amount := launch[key]) is not None:
                yield from _check_quantity(key, str(amount), example)


def _check_quantity(key: str, amount: str, example: str) -> Iterator[MLScaleError]:
    """Yield a problem for an amount that Kubernetes refuses, or that is a few bytes where gigabytes were meant."""
    where, fix = f"launch.{key}", f"launch.{key}={example}"
    if not _QUANTITY.fullmatch(amount):
        why = "Kubernetes writes amounts as numbers with Ki, Mi, Gi, Ti, k, M, G, T, or m for thousandths"
        yield MLScaleError(f"{where} is {amount!r}", where=where, why=why, fix=fix)
    elif key != "cpu" and amount.isdigit() and int(amount) < _LEAST_BYTES:
        why = "without a unit, Kubernetes reads bytes"
        yield MLScaleError(f"{where} is {amount} bytes", where=where, why=why, fix=f"launch.{key}={amount}Gi")


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
