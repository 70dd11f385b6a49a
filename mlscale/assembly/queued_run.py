"""Runs that were submitted to a scheduler: whether this process submits or trains, and the first attempt in a job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.launch.job_environment import JOB_RUN, get_shipped_code, is_job_of
from mlscale.runs.folder import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

ARRAY_SCHEDULERS = ("slurm",)
"""Schedulers that take the jobs of a sweep as one array; others get a job for each run."""
_FACTS = ("data_version", "label_digest", "decode_version", "metric", "mode")  # in run.json, known from the data


def is_for_scheduler(cfg: DictConfig) -> bool:
    """Return True if a scheduler is to start this training: it names one, and this process is not in the run's job."""
    if not (cfg.get("launch") or {}).get("scheduler"):
        return False
    return not (cfg.get("resume") and is_job_of(Path(cfg.resume)))


def split_queued_run(run: RunFolder | None) -> tuple[RunFolder | None, RunFolder | None]:
    """Return the run as the first of two if no attempt at it has begun, else as the second."""
    return (run, None) if run is not None and run.status == "queued" else (None, run)


def begin_queued_run(run: RunFolder, config_yaml: str, derived: Mapping[str, Any]) -> RunFolder:
    """Begin the first attempt of a run that waited for its job; return it."""
    from mlscale.data.order.keyed_permutation import ORDER_VERSION

    facts = {name: derived[name] for name in _FACTS if derived.get(name) is not None}
    run.begin_queued(config_yaml, derived, order_version=ORDER_VERSION, **facts)
    return run


def read_shipped_digest() -> str | None:
    """Return the SHA-256 of the code that was shipped with this process's job; None where none was."""
    if get_shipped_code() is None:
        return None
    code = RunFolder.open(os.environ[JOB_RUN]).run["code"]
    return str(code["digest"]) if code else None
