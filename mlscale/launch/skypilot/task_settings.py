"""The settings of a job of SkyPilot, as conf/launch/skypilot.yaml describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

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
