"""The settings of a job on Kubernetes, as conf/launch/kubernetes.yaml describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlscale.errors import MLScaleError
from mlscale.launch.cloud.cloud_job import check_scalars
from mlscale.launch.cloud.cloud_settings import CloudSettings

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
