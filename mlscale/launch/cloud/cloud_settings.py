"""The settings of a job on Kubernetes or SkyPilot: read from plain values, all problems reported together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from mlscale.errors import MLScaleError, raise_all
from mlscale.launch.cloud.cloud_job import (
    check_counts,
    check_required,
    check_runs_folder,
    check_scalars,
    check_texts,
    check_variables,
)
from mlscale.launch.node_devices import check_devices

Settings = TypeVar("Settings", bound="CloudSettings")


@dataclass(frozen=True, kw_only=True)
class CloudSettings:
    """The settings that every platform with its own file system takes; conf/launch has a file for each platform."""

    # The key of the volume or bucket, and what sets it, to type.
    volume_key: ClassVar[str]
    volume_fix: ClassVar[str]
    # The least value of each number.
    least: ClassVar[Mapping[str, int]] = {"nodes": 1, "max_failures": 0}

    volume_path: str = "/mnt/mlscale"
    nodes: int = 1
    variables: Sequence[str] = ()
    env: Mapping[str, Any] = field(default_factory=dict)
    cpu: str | int | None = None
    mem: str | int | None = None
    image: str | None = None
    max_failures: int = 3

    @classmethod
    def find_own_problems(cls, launch: Mapping[str, Any]) -> Iterator[MLScaleError]:
        """Yield what is wrong on this platform alone."""
        yield from ()


def read_cloud_settings(
    kind: type[Settings], launch: Mapping[str, Any], devices: object, runs_dir: str, required: Sequence[str]
) -> Settings:
    """Return the settings of a job.

    Args:
        kind: the settings of the platform.
        launch: the values of the group `launch`.
        devices: `trainer.devices`.
        runs_dir: `runs_dir`.
        required: the environment variables without which the run's config can't be resolved.

    Raises:
        MLScaleError: everything that is wrong with them, reported together.
    """
    # All of them before the first value is used: a wrong type would fail in the constructor, alone.
    raise_all([*_find_problems(kind, launch, devices, runs_dir, required)])
    # Keys for the processes of the job, such as `timeout_s`, are not settings of the pod or the task.
    return kind(**{name: value for name, value in launch.items() if name in kind.__dataclass_fields__})


def _find_problems(
    kind: type[CloudSettings], launch: Mapping[str, Any], devices: object, runs_dir: str, required: Sequence[str]
) -> Iterator[MLScaleError]:
    yield from kind.find_own_problems(launch)
    yield from check_runs_folder(runs_dir, launch[kind.volume_key], str(launch["volume_path"]), kind.volume_fix)
    yield from check_devices(devices)
    yield from check_counts(launch, kind.least)
    yield from check_variables(launch["variables"], launch["env"])
    yield from check_scalars("env", launch["env"])
    # A variable of `launch.env` is passed, too.
    yield from check_required(required, [*launch["variables"], *launch["env"]])
    yield from check_texts(launch)
