"""The jobs of a multirun: each a run in the sweep's folder, and a table at the end."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mlscale import commands
from mlscale.assembly.queued_run import ARRAY_SCHEDULERS, is_for_scheduler
from mlscale.assembly.ready import raise_if_invalid
from mlscale.atomic_files import write_json
from mlscale.config.composition.request import Request
from mlscale.config.metric_direction import infer_direction
from mlscale.contracts.output_document import print_document
from mlscale.culprit import wrap_unforeseen_error
from mlscale.errors import Exit, MLScaleError
from mlscale.report import Result, format_number, format_table
from mlscale.runs.folder import RunFolder
from mlscale.runs.overview import parse_sweep_id
from mlscale.runs.run_files import build_run_path
from mlscale.runs.run_reader import RUN
from mlscale.runs.sweep_folder import FailedJob, discard_sweep, record_failed_job, start_sweep
from mlscale.secrets.config_secrets import mask_overrides
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.commands.train.submission import FrozenRun


@dataclass
class SweepJob:
    """One job: the overrides that distinguish it, and its result or error."""

    overrides: list[str]
    result: Result | None = None
    error: MLScaleError | None = None


@dataclass
class Sweep:
    """The jobs of a multirun, run one after another for Hydra's launcher."""

    request: Request
    jobs: list[SweepJob] = field(default_factory=list)
    folder: Path | None = None
    metric: str | None = None
    mode: str = "max"
    output: str = "table"
    frozen: list[FrozenRun] = field(default_factory=list)

    def run_job(self, cfg: DictConfig, overrides: list[str]) -> float | None:
        """Run one job, and return its metric for sweepers that search. An error is printed; the sweep continues."""
        folder = self._ensure_started(cfg)
        masker = Masker.create_for_run(cfg)
        # Masked at once: the overrides are printed, and written to the table.
        typed = mask_overrides(_select_distinguishing(overrides, self.request.overrides))
        job = SweepJob([masker.mask_text(item) for item in typed])
        self.jobs.append(job)
        print(f"\njob {len(self.jobs)}  {' '.join(_strip_plus(job.overrides))}", file=sys.stderr)
        runs = set(folder.glob(f"*/{RUN}"))
        try:
            cfg = raise_if_invalid(cfg, replace(self.request, overrides=tuple(overrides)))
            # After the check, which refuses derived values that are set.
            cfg.derived.sweep_dir = str(folder)
            _set_tracker_group(cfg, folder.name)
            cfg.derived.overrides = [item.removeprefix("++") for item in overrides]  # this job's, not the sweep's
            if self.request.command == "train" and is_for_scheduler(cfg) and cfg.launch.scheduler in ARRAY_SCHEDULERS:
                job.result = self._freeze_job(cfg)
            else:
                job.result = commands.run_checked_config(self.request.command, cfg)
                self._adopt_metric(job.result)
        except MLScaleError as error:
            # The user has stopped the sweep, not the job: no further job starts.
            if error.exit in (Exit.INTERRUPTED, Exit.TERMINATED):
                job.error = error
                raise
            job.error = error
        except Exception as error:
            job.error = wrap_unforeseen_error(error)
        if job.error:
            print(masker.mask_text(f"error: {job.error}"), file=sys.stderr)
            if set(folder.glob(f"*/{RUN}")) == runs:
                what = masker.mask_text(job.error.what)
                record_failed_job(folder, FailedJob(len(self.jobs), tuple(_strip_plus(job.overrides)), what))
        return _get_metric_value(job, self.metric)

    def _freeze_job(self, cfg: DictConfig) -> Result:
        """Make the folder of a job that a scheduler will start, as a task of the sweep's array."""
        from mlscale.commands.train.submission import freeze_run, refuse_searching_sweeper

        refuse_searching_sweeper()
        frozen = freeze_run(cfg)
        self.frozen.append(frozen)
        return Result("train", True, "queued", artifacts={"run": str(frozen.folder.path)})

    def submit_frozen(self) -> None:
        """Submit the jobs that a scheduler starts, as one array.

        Raises:
            MLScaleError: the scheduler refuses it.
        """
        if not self.frozen or self.folder is None:
            return
        from mlscale.commands.train.submission import submit_frozen_array

        array = submit_frozen_array(self.folder, self.frozen)
        sweep = parse_sweep_id(str(self.folder))
        print(f"\nsubmitted array {array}, {len(self.frozen)} jobs; mlscale runs sweep {sweep}", file=sys.stderr)

    def close(self) -> None:
        """Print the table, best first, and the jobs that failed."""
        if self.folder is None:
            # Hydra creates the folder before the first job: without a job it is removed.
            for path in _planned:
                discard_sweep(path)
            return
        ranked = sorted(self.jobs, key=self._compute_rank)
        rows = [self._format_row(job) for job in ranked]
        headers = ("job", "overrides", self.metric or "metric", "run")
        write_json(self.folder / "table.json", [dict(zip(headers, row, strict=True)) for row in rows])
        if self.output == "json":
            print_document("multirun", self._build_document(ranked))
        else:
            print(format_table(rows, headers))
        if failed := [(job, job.error) for job in self.jobs if job.error]:
            print(f"\n{len(failed)} of {len(self.jobs)} jobs failed:", file=sys.stderr)
            for job, error in failed:
                print(
                    f"  job {self.jobs.index(job) + 1}  {' '.join(_strip_plus(job.overrides))}: {error.what}",
                    file=sys.stderr,
                )
        print(f"\nsweep     {self.folder}", file=sys.stderr)

    @property
    def exit_code(self) -> int:
        """0, or the exit code of the first job that failed; 4 if the only failures are gates."""
        gate = any(job.result is not None and not job.result.ok for job in self.jobs)
        return next((int(job.error.exit) for job in self.jobs if job.error), int(Exit.GATE if gate else Exit.DONE))

    def _ensure_started(self, cfg: DictConfig) -> Path:
        from hydra.core.hydra_config import HydraConfig

        if self.folder is None:
            self.metric = cfg.metric or None
            self.mode = cfg.mode or (infer_direction(self.metric) if self.metric else None) or "max"
            self.output = cfg.output
            self.folder = Path(HydraConfig.get().sweep.dir).absolute()
            start_sweep(self.folder, str(cfg.name))
        return self.folder

    def _adopt_metric(self, result: Result) -> None:
        """Sort by the metric that judged the first run, if none was set."""
        if self.metric is None and self.request.command == "train":
            run = RunFolder.open(result.artifacts["run"]).run
            self.metric, self.mode = run["metric"], run["mode"] or "max"

    def _compute_rank(self, job: SweepJob) -> tuple[bool, bool, float]:
        value = _get_metric_value(job, self.metric)
        if value is None or math.isnan(value):  # which compares with nothing
            return job.error is not None, True, 0.0
        # Failed jobs last, then those without a value; `sorted` puts smaller numbers first.
        return job.error is not None, False, value * (-1 if self.mode == "max" else 1)

    def _build_document(self, ranked: Sequence[SweepJob]) -> dict[str, object]:
        jobs = [
            {
                "job": self.jobs.index(job) + 1,
                "overrides": _strip_plus(job.overrides),
                "run": job.result.artifacts.get("run") if job.result else job.error and (job.error.run or None),
                "value": _get_metric_value(job, self.metric),
                "ok": job.error is None and job.result is not None and job.result.ok,
                "error": job.error.what if job.error else None,
            }
            for job in ranked
        ]
        return {"sweep": str(self.folder), "metric": self.metric, "mode": self.mode, "jobs": jobs}

    def _format_row(self, job: SweepJob) -> tuple[str, str, str, str]:
        value = _get_metric_value(job, self.metric)
        shown = "failed" if job.error else "-" if value is None else format_number(value)
        run = Path(job.result.artifacts["run"]).name if job.result and "run" in job.result.artifacts else "-"
        return str(self.jobs.index(job) + 1), " ".join(_strip_plus(job.overrides)), shown, run


_planned: list[Path] = []


@cache
def _plan_sweep_dir(runs_dir: str, name: str) -> str:
    # Cached: the interpolation is resolved once for each job, and all of them must get the same folder.
    _planned.append(build_run_path(runs_dir, f"{name}-sweep").absolute())
    return str(_planned[-1])


def register_sweep_dir() -> None:
    """Register `${mlscale.sweep_dir:runs,name}` of conf/<command>.yaml: the one folder of this command's sweep."""
    _plan_sweep_dir.cache_clear()
    _planned.clear()
    OmegaConf.register_new_resolver("mlscale.sweep_dir", _plan_sweep_dir, replace=True)


def _get_metric_value(job: SweepJob, metric: str | None) -> float | None:
    # A run reports its best value as best_<metric>, other commands only the metric.
    metrics = job.result.metrics if job.result and metric else {}
    return metrics.get(f"best_{metric}", metrics.get(metric or ""))


def _set_tracker_group(cfg: DictConfig, name: str) -> None:
    """Let trackers that show runs in groups show a sweep as one, unless another group was set."""
    for node in (cfg.get("logger") or {}).values():
        if node and "group" in node and node["group"] is None:
            node["group"] = name


def _select_distinguishing(overrides: list[str], typed: Sequence[str]) -> list[str]:
    """Return the overrides that distinguish a job. Keys are compared, because Hydra rewrites values in its own form."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(typed))
    fixed = {str(override.input_line).partition("=")[0] for override in parsed if not override.is_sweep_override()}
    return [item for item in overrides if item.partition("=")[0] not in fixed]


def _strip_plus(overrides: list[str]) -> list[str]:
    return [item.lstrip("+") for item in overrides]
