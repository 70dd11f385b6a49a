"""The settings of a job on Kubernetes: read from plain values, all problems reported together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlscale.errors import MLScaleError, raise_all
from mlscale.launch.cloud_job import (
    check_counts,
    check_required,
    check_runs_folder,
    check_texts,
    check_variables,
)
from mlscale.launch.node_devices import check_devices

# The least value of each.
_COUNTS = {"nodes": 1, "grace_s": 1, "max_failures": 0}


@dataclass(frozen=True)
class KubernetesSettings:
    """The settings of `launch=kubernetes`, as conf/launch/kubernetes.yaml describes them."""

    image: str
    claim: str
    namespace: str = "default"
    nodes: int = 1
    volume_path: str = "/mnt/mlscale"
    variables: Sequence[str] = ()
    secret_name: str = "mlscale"  # noqa: S105 - the name of a Secret
    env: Mapping[str, Any] = field(default_factory=dict)
    cpu: str | None = None
    mem: str | None = None
    gpu: str = "nvidia.com/gpu"
    shared_memory: str | None = None
    node_selector: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    grace_s: int = 60
    max_failures: int = 3


def read_kubernetes_settings(
    launch: Mapping[str, Any], devices: object, runs_dir: str, required: Sequence[str]
) -> KubernetesSettings:
    """Return the settings of a job.

    Args:
        launch: the values of the group `launch`.
        devices: `trainer.devices`.
        runs_dir: `runs_dir`.
        required: the environment variables without which the run's config can't be resolved.

    Raises:
        MLScaleError: everything that is wrong with them, reported together.
    """
    # All of them before the first value is used: a wrong type would fail in the constructor, alone.
    raise_all([*_find_problems(launch, devices, runs_dir, required)])
    # Keys for the processes of the job, such as `timeout_s`, are not settings of the pod or the task.
    values = {name: value for name, value in launch.items() if name in KubernetesSettings.__dataclass_fields__}
    return KubernetesSettings(**values)


def _find_problems(
    launch: Mapping[str, Any], devices: object, runs_dir: str, required: Sequence[str]
) -> Iterator[MLScaleError]:
    if not launch["image"]:
        yield MLScaleError(
            "a pod needs an image",
            where="launch.image",
            why="it holds mlscale, your code and your recipes; docker/Dockerfile builds one from this folder",
            fix="launch.image=registry.example.com/train:1",
        )
    yield from check_runs_folder(
        runs_dir, launch["claim"], str(launch["volume_path"]), "launch.claim=<PersistentVolumeClaim>"
    )
    yield from check_devices(devices)
    yield from check_counts(launch, _COUNTS)
    yield from check_variables(launch["variables"], launch["env"])
    # A variable of `launch.env` is passed, too.
    yield from check_required(required, [*launch["variables"], *launch["env"]])
    yield from check_texts(launch)
