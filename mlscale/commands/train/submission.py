"""Hand a training over to a scheduler: freeze its config in a run folder that waits, and submit the job."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.assembly.queued_run import is_for_scheduler
from mlscale.commands.train.run_start import RunOrigin, RunStart, create_run_folder
from mlscale.config.composition.frozen import load_composed
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.scheduled_jobs import refuse_cloud_run, refuse_live_job
from mlscale.launch.slurm.job_script import render_job_script
from mlscale.launch.slurm.settings import SlurmSettings, read_slurm_settings
from mlscale.launch.slurm.slurm_commands import read_cluster_name
from mlscale.launch.slurm.submit_jobs import (
    describe_unshipped_files,
    plan_run_job,
    refuse_unshippable_code,
    submit_array,
    submit_run_job,
)
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result
from mlscale.runs.code.code_snapshot import CodeSnapshot
from mlscale.runs.folder import RunFolder
from mlscale.runs.resume_plan import find_run_to_resume
from mlscale.runs.run_files import build_run_path
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

_REQUIRED_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)\s*\}")
# Filled in by the job, which reads the data; a run folder that waits has them empty.
_UNKNOWN = dict.fromkeys(("data_version", "label_digest", "metric", "mode"))


@dataclass(frozen=True)
class FrozenRun:
    """A run that waits to be submitted.

    Attributes:
        folder: its folder.
        settings: of its job.
        variables: names of the environment variables that its config needs.
        code: to ship; None to import the code of the working folder, or of an earlier copy.
        is_new: True if this command made the folder.
    """

    folder: RunFolder
    settings: SlurmSettings
    variables: tuple[str, ...]
    code: CodeSnapshot | None
    is_new: bool


def submit_run(cfg: DictConfig) -> Result:
    """Freeze and submit one run; or submit one again that `resume` names. Nothing is trained here.

    Raises:
        MLScaleError: the settings contradict each other, or SLURM refuses the job. Nothing is left behind.
    """
    settings = _read_settings(cfg)
    if settings.dry_run:
        planned = plan_run_job(build_run_path(cfg.runs_dir, cfg.name).absolute(), ships_code=bool(cfg.snapshot))
        return Result("train", True, render_job_script(settings, planned).rstrip("\n"))
    if settings.array is not None and not cfg.resume:
        # Not an error: a site's own file of settings may have it for its sweeps.
        print("launch.array has no effect without -m, a sweep: this is one job", file=sys.stderr, flush=True)
    # The folder comes first, because the script and the record of the job lie in it.
    frozen = freeze_run(cfg)
    try:
        job = submit_run_job(frozen.folder, settings, frozen.variables, frozen.code)
    except BaseException:
        if frozen.is_new:
            frozen.folder.discard_run()
        raise
    run = frozen.folder
    size = (
        f"{settings.nodes} node{'s' * (settings.nodes > 1)} × {settings.devices} process{'es' * (settings.devices > 1)}"
    )
    return Result(
        command="train",
        ok=True,
        sentence=f"submitted job {job} to {read_cluster_name()}, {size}; mlscale runs logs {run.id} follow=true",
        artifacts={"run": str(run.path)},
        details={"job": job},
    )


def freeze_run(cfg: DictConfig) -> FrozenRun:
    """Make the folder of a run that waits for its job; or return the one that `resume` names, its settings renewed.

    Raises:
        MLScaleError: its job waits or runs already; its code can't be shipped; a variable that it needs is not set.
    """
    settings = _read_settings(cfg)
    read_cluster_name()  # first: without SLURM nothing is made
    masker = Masker.create_for_run(cfg)
    start = RunStart.prepare_start(cfg, masker)
    variables = _find_required_variables(start.config_yaml)
    earlier = (
        find_run_to_resume(cfg.resume, start.config_yaml, start.digest, Path(cfg.runs_dir)) if cfg.resume else None
    )
    if earlier is not None:
        refuse_cloud_run(earlier)
        refuse_live_job(earlier)
        _refuse_ended_run(earlier)
        earlier.update_config(start.config_yaml, earlier.derived)
        return FrozenRun(earlier, settings, variables, None, is_new=False)
    code = start.code if start.code and start.code.complete else None
    if start.code is not None:
        refuse_unshippable_code(start.code)
        print_masked_lines(describe_unshipped_files(start.code), masker)
    folder = create_run_folder(cfg, start, dict(_UNKNOWN), masker, RunOrigin.resolve_origin(cfg), is_queued=True)
    return FrozenRun(folder, settings, variables, code, is_new=True)


def submit_frozen_array(sweep: Path, runs: Sequence[FrozenRun]) -> str:
    """Submit one array with a task for each run of a sweep; return its id.

    Raises:
        MLScaleError: the runs differ in size, or SLURM refuses the array. Folders of new runs are removed.
    """
    try:
        settings = _require_equal_settings(runs)
        variables = {run.folder.id: run.variables for run in runs}
        code = next((run.code for run in runs if run.code), None)
        return submit_array(sweep, [run.folder for run in runs], settings, variables, code)
    except BaseException:
        for run in runs:
            if run.is_new:
                run.folder.discard_run()
        raise


def resubmit_runs(sweep: Path, folders: Sequence[RunFolder]) -> str:
    """Submit runs of a sweep again, as one array; return its id.

    Raises:
        MLScaleError: a run was not submitted to a scheduler, or SLURM refuses the array.
    """
    runs = []
    for folder in folders:
        cfg = load_composed(folder.path)
        if not is_for_scheduler(cfg):
            raise MLScaleError(
                f"the run {folder.path.name} was not submitted to a scheduler",
                where=str(folder.path),
                fix=f"mlscale runs resume {folder.id}",
            )
        refuse_live_job(folder)
        variables = _find_required_variables(folder.config_text)
        runs.append(FrozenRun(folder, _read_settings(cfg), variables, None, is_new=False))
    return submit_frozen_array(sweep, runs)


def refuse_searching_sweeper() -> None:
    """Raise an error for a sweeper that chooses jobs by the metrics of earlier ones, which a submission has not.

    Raises:
        MLScaleError: the sweeper is not Hydra's own, which lists all jobs.
    """
    from hydra.core.hydra_config import HydraConfig

    target = str(HydraConfig.get().sweeper._target_)
    if not target.endswith(".BasicSweeper"):
        raise MLScaleError(
            "jobs that are submitted return no metric to search by",
            where=f"hydra/sweeper: {target}",
            why="the command ends when they are submitted, before any of them has run",
            fix="launch=local, for this search\n-m optimizer.lr=0.1,0.01, a list of values",
        )


def _refuse_ended_run(run: RunFolder) -> None:
    if run.status in ("done", "diverged"):
        raise MLScaleError(
            f"the run {run.path.name} {'is done' if run.status == 'done' else 'has diverged'}",
            where=str(run.path),
            why="it has no step left to take; like= starts a new run with its config",
            fix=f"mlscale runs show {run.id}\nmlscale like={run.id}",
        )


def _read_settings(cfg: DictConfig) -> SlurmSettings:
    launch: Any = OmegaConf.to_container(cfg.launch, resolve=True)
    return read_slurm_settings(launch, cfg.trainer.get("devices", 1), str(cfg.trainer.get("accelerator", "auto")))


def _find_required_variables(config_yaml: str) -> tuple[str, ...]:
    """Return the variables that a config needs.

    Raises:
        MLScaleError: one of them is not set here, so the job would not have it.
    """
    names = tuple(dict.fromkeys(_REQUIRED_VARIABLE.findall(config_yaml)))
    if missing := [name for name in names if name not in os.environ]:
        raise MLScaleError(
            f"the environment lacks {', '.join(missing)}",
            where="the run's config",
            why="the job gets the environment of the command that submits it",
            fix=f"export {missing[0]}=<its value>",
            exit=Exit.ENVIRONMENT,
        )
    return names


def _require_equal_settings(runs: Sequence[FrozenRun]) -> SlurmSettings:
    first = runs[0].settings
    # One array has one script, and so one size for all tasks.
    if any(run.settings != first for run in runs):
        raise MLScaleError(
            "the jobs of this sweep differ in their launch settings or their devices",
            where="launch, trainer.devices",
            why="they are tasks of one array, which have the same size",
            fix="leave launch and trainer.devices out: they can't be swept",
        )
    return first
