"""The settings of a job of SkyPilot, as conf/launch/skypilot.yaml describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlscale.errors import MLScaleError
from mlscale.launch.cloud.cloud_settings import CloudSettings


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
