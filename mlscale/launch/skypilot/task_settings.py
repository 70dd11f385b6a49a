"""The settings of a job of SkyPilot: read from plain values, all problems reported together."""

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
_COUNTS = {"nodes": 1, "max_failures": 0}


@dataclass(frozen=True)
class SkyPilotSettings:
    """The settings of `launch=skypilot`, as conf/launch/skypilot.yaml describes them."""

    bucket: str
    volume_path: str = "/mnt/mlscale"
    nodes: int = 1
    accelerators: str | None = None
    infra: str | None = None
    spot: bool = True
    cpu: str | None = None
    mem: str | None = None
    disk_size: int | None = None
    image: str | None = None
    setup: Sequence[str] = ()
    variables: Sequence[str] = ()
    env: Mapping[str, Any] = field(default_factory=dict)
    max_failures: int = 3


def read_skypilot_settings(
    launch: Mapping[str, Any], devices: object, runs_dir: str, required: Sequence[str]
) -> SkyPilotSettings:
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
    values = {name: value for name, value in launch.items() if name in SkyPilotSettings.__dataclass_fields__}
    return SkyPilotSettings(**values)


def _find_problems(
    launch: Mapping[str, Any], devices: object, runs_dir: str, required: Sequence[str]
) -> Iterator[MLScaleError]:
    yield from check_runs_folder(runs_dir, launch["bucket"], str(launch["volume_path"]), "launch.bucket=s3://<bucket>")
    yield from check_devices(devices)
    yield from check_counts(launch, _COUNTS)
    yield from check_variables(launch["variables"], launch["env"])
    # A variable of `launch.env` is passed, too.
    yield from check_required(required, [*launch["variables"], *launch["env"]])
    yield from check_texts(launch)
