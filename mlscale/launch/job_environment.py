"""The environment of a job that a scheduler started: which run it trains, and where its code is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

JOB_RUN = "MLSCALE_JOB_RUN"
"""The folder of the run that this job trains; set in the job script."""
JOB_CODE = "MLSCALE_JOB_CODE"
"""The folder with the code as it was submitted; unset where the job imports the working folder's."""


def is_job_of(run: Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if this process is in the job that trains `run`: another run's job may start commands, too."""
    named = environment.get(JOB_RUN)
    return bool(named) and Path(str(named)).resolve() == run.resolve()


def get_shipped_code(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder with the code as it was submitted; None outside a job, and in one without a copy."""
    named = environment.get(JOB_CODE)
    return Path(named) if named else None
