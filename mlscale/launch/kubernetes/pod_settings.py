"""The settings of a job on Kubernetes, as conf/launch/kubernetes.yaml describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlscale.errors import MLScaleError
from mlscale.launch.cloud.cloud_settings import CloudSettings


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings(CloudSettings):
    """The settings of `launch=kubernetes`."""

    volume_key: ClassVar[str] = "claim"
    volume_fix: ClassVar[str] = "launch.claim=<PersistentVolumeClaim>"
    least: ClassVar[Mapping[str, int]] = {"nodes": 1, "grace_s": 1, "max_failures": 0}

    claim: str
    namespace: str = "default"
    secret_name: str = "mlscale"  # noqa: S105 - the name of a Secret
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
