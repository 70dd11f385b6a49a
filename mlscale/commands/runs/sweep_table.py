"""The table of a sweep whose runs are trained by jobs, while it fills; and the jobs that were lost, submitted again."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mlscale.commands.runs.job_actions import NOT_SUBMITTED, find_end_cause, find_run_statuses
from mlscale.config.metric_direction import infer_direction
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit, MLScaleError
from mlscale.report import format_number, format_table
from mlscale.runs.find import LAST, list_runs
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import get_sealed_sentence, read_job_record
from mlscale.runs.overview import RunOverview, parse_sweep_id, summarize_run
from mlscale.runs.sweep_folder import FailedJob, find_sweep_folders, read_failed_jobs

_WAITING = ("queued", "requeued", "running", "elsewhere", "written")
_ENDED = ("done", "diverged")
_UNSUBMITTED = "the command that was to submit its job ended before"


def find_sweep(ref: str, root: str | Path) -> tuple[Path, list[RunFolder]]:
    """Return the folder of the sweep that `ref` names, and its runs in the order in which they were made.

    Args:
        ref: its id or the beginning of it, its folder, or 'last'.
        root: the folder of run folders.

    Raises:
        MLScaleError: no sweep matches, or more than one.
    """
    # Those without a run as well, of which every job failed.
    sweeps: dict[Path, list[RunFolder]] = {path: [] for path in find_sweep_folders(root) if read_failed_jobs(path)}
    for run in list_runs(root):
        if run.run["sweep"]:
            # Listed from the newest: at the front they come in the order in which they were made.
            sweeps.setdefault(run.path.parent, []).insert(0, run)
    sweeps = dict(sorted(sweeps.items(), key=lambda item: parse_sweep_id(str(item[0])), reverse=True))
    named = [path for path in sweeps if _is_named(path, ref)]
    matches = list(sweeps)[:1] if ref == LAST else named
    if len(matches) != 1:
        known = ", ".join(path.name.rsplit("-", 1)[-1] for path in list(sweeps)[:5])
        raise MLScaleError(
            f"{ref!r} means {len(matches)} sweeps" if matches else f"no sweep {ref!r}",
            where=str(root),
            why=f"sweeps: {known}" if known else "",
            fix="mlscale runs sweep last"
            if sweeps
            else "mlscale -m +recipe=resnet optimizer.lr=0.1,0.01, which makes one",
        )
    return matches[0], sweeps[matches[0]]


def _is_named(path: Path, ref: str) -> bool:
    return bool(ref) and (
        path.name.rsplit("-", 1)[-1].startswith(ref) or path.name == ref or path == Path(ref).absolute()
    )


def print_sweep(path: Path, runs: Sequence[RunFolder], *, as_json: bool) -> int:
    """Print the runs of a sweep, best first, and why others failed; return 4 if one failed, else 0."""
    failed = read_failed_jobs(path)
    statuses = find_run_statuses(runs)
    overviews = sorted(map(summarize_run, runs), key=_compute_rank)
    lost = list_lost_runs(runs, statuses)
    code = int(Exit.GATE if lost or failed else Exit.DONE)
    causes = {run.id: _UNSUBMITTED if statuses[run.id] == NOT_SUBMITTED else _find_cause(run) for run in lost}
    if as_json:
        ranked = [{**asdict(view), "status": statuses[view.id]} for view in overviews]
        jobs = [asdict(job) for job in failed]
        print_document("runs-sweep", {"sweep": str(path), "runs": ranked, "lost": causes, "failed_jobs": jobs})
        return code
    shared = _find_shared_overrides(overviews, failed)
    rows = [_format_row(view, statuses[view.id], shared) for view in overviews]
    rows += [(f"job {job.job}", " ".join(job.overrides), "failed", "-") for job in failed]
    metric = next((view.metric for view in overviews if view.metric), None)
    print(format_table(rows, ("run", "overrides", "status", metric or "metric")))
    states = [*statuses.values(), *("failed" for _ in failed)]
    counts = {status: states.count(status) for status in dict.fromkeys(states)}
    print(f"\n{path.name}: {', '.join(f'{count} {status}' for status, count in counts.items())}", file=sys.stderr)
    for run in lost:
        print(f"  {run.id}  {statuses[run.id]}: {causes[run.id]}", file=sys.stderr)
    for job in failed:
        print(f"  job {job.job}  failed before it had a run: {job.error}", file=sys.stderr)
    if lost:
        print(f"submit them again: mlscale runs sweep {path.name.rsplit('-', 1)[-1]} resubmit=true", file=sys.stderr)
    return code


def _find_shared_overrides(views: Sequence[RunOverview], failed: Sequence[FailedJob]) -> set[str]:
    """Return overrides that all jobs have: they would fill the table without a difference between rows."""
    if not views:
        return set()
    shared = set.intersection(*(set(view.overrides) for view in views))
    swept = {item.partition("=")[0] for job in failed for item in job.overrides}
    return {item for item in shared if item.lstrip("+").partition("=")[0] not in swept}


def list_lost_runs(runs: Sequence[RunFolder], statuses: Mapping[str, str]) -> list[RunFolder]:
    """Return the runs that have not ended, and that no job will go on with."""
    return [run for run in runs if statuses[run.id] not in (*_WAITING, *_ENDED)]


def _compute_rank(view: RunOverview) -> tuple[bool, float]:
    if view.value is None or view.value != view.value:  # NaN, which compares with nothing
        return True, 0.0
    larger_is_better = view.metric is not None and infer_direction(view.metric) != "min"
    return False, -view.value if larger_is_better else view.value


def _format_row(view: RunOverview, status: str, shared: set[str]) -> tuple[str, str, str, str]:
    own = " ".join(item for item in view.overrides if item not in shared)
    return view.id, own, status, "-" if view.value is None else format_number(view.value)


def _find_cause(run: RunFolder) -> str:
    """Return why a run failed, in one line: its own words, else those of its job."""
    record = read_job_record(run.path)
    if record is None:
        return get_sealed_sentence(run.manifest, "") or "no cause was recorded"
    # A process that was killed wrote no sentence; its job may have noted how it ended.
    return find_end_cause(run, record) or get_sealed_sentence(run.manifest, record.submitted) or f"see {record.log}"
