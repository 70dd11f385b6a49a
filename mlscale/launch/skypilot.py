"""Managed jobs of SkyPilot: their settings, and the task's file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.cloud import START_FILES, CloudJob, CloudSettings, render_scalar


@dataclass(frozen=True, kw_only=True)
class SkyPilotSettings(CloudSettings):
    """The settings of `launch=skypilot`."""

    volume_key: ClassVar[str] = "bucket"
    volume_fix: ClassVar[str] = "launch.bucket=s3://<bucket>"

    bucket: str
    accelerators: str | None = None
    infra: str | None = None
    spot: bool = True
    disk_size: int | None = None
    setup: Sequence[str] = ()

    @classmethod
    def find_own_problems(cls, launch: Mapping[str, Any]) -> Iterator[MLScaleError]:
        """Yield an error where nothing installs mlscale on the machines."""
        if not launch["setup"] and not launch["image"]:
            yield MLScaleError(
                "nothing installs mlscale on the machines of the job",
                where="launch.setup",
                why="the default image is without it, and no package index has a release of it",
                fix="launch.setup=['pip install <a wheel or git+https://… of mlscale>']\n"
                "launch.image=docker:<an image with mlscale>",
            )


_START_PATH = "/tmp/mlscale-run"  # noqa: S108 - of a machine that is made for this job
_PORT = 29500
# The agent replaces the shell, which would not pass a signal on; SkyPilot sets the variables.
_RUN = """\
exec python -m mlscale.launch.external.elastic_agent \\
  --nnodes="$SKYPILOT_NUM_NODES" --node-rank="$SKYPILOT_NODE_RANK" --nproc-per-node={devices} \\
  --master-addr="$(printf '%s\\n' "$SKYPILOT_NODE_IPS" | head -n 1)" --master-port={port} \\
  -m mlscale {words}
"""


def build_task(job: CloudJob, settings: SkyPilotSettings, workdir: Path) -> dict[str, Any]:
    """Return the task; SkyPilot copies the folder `workdir` to each machine, and the run starts in it."""
    # The order of SkyPilot's own examples.
    task: dict[str, Any] = {
        "name": job.name,
        "num_nodes": settings.nodes,
        "workdir": str(workdir),
        "resources": _build_resources(settings),
        "file_mounts": {
            settings.volume_path: _build_bucket(settings.bucket),
            **{f"{_START_PATH}/{name}": str(job.run / name) for name in START_FILES},
        },
    }
    if settings.env:
        task["envs"] = {str(name): render_scalar(value) for name, value in settings.env.items()}
    if settings.variables:
        # Without values: `sky jobs launch --secret NAME` passes them from the environment.
        task["secrets"] = dict.fromkeys(settings.variables)
    if settings.setup:
        task["setup"] = "".join(f"{line}\n" for line in settings.setup)
    task["run"] = render_run_command(job)
    return task


def render_run_command(job: CloudJob) -> str:
    """Return the shell lines that each machine runs."""
    return _RUN.format(devices=job.devices, port=_PORT, words=shlex.join(job.build_train_words(_START_PATH)))


def _build_resources(settings: SkyPilotSettings) -> dict[str, Any]:
    wanted = {
        "infra": settings.infra, "accelerators": settings.accelerators, "cpus": settings.cpu, "memory": settings.mem,
        "disk_size": settings.disk_size, "image_id": settings.image,
    }  # fmt: skip
    return {
        **{name: value for name, value in wanted.items() if value},
        "use_spot": settings.spot,
        "job_recovery": {
            "max_restarts_on_errors": settings.max_failures,
            "recover_on_exit_codes": [int(Exit.SAVED)],
        },
    }


def _build_bucket(bucket: str) -> dict[str, str]:
    # Not MOUNT: a run folder is made aside and renamed, which a plain mount of an object store can't do.
    source = {"source": bucket} if "://" in bucket else {"name": bucket}
    return {**source, "mode": "MOUNT_CACHED"}
