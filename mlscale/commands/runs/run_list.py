"""`mlscale runs ls`: the runs of a folder, newest first, those of a sweep together.

`mlscale runs du`: how much space each run takes, and how much of that `mlscale runs gc` would free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlscale.atomic_files import iterate_regular_files
from mlscale.commands.options import Options
from mlscale.commands.runs.collect_checkpoints import choose_removals
from mlscale.commands.runs.job_actions import NOT_SUBMITTED, find_end_cause, find_run_statuses
from mlscale.commands.shown_facts import DATE, format_date, format_fitted_table
from mlscale.config.metric_direction import infer_direction
from mlscale.contracts.output_document import Answer
from mlscale.errors import Exit, MLScaleError
from mlscale.report import format_duration, format_number, format_size, format_table
from mlscale.report.text import format_count
from mlscale.runs.find import LAST, find_corrupted_runs, find_run, list_runs
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import get_sealed_sentence, read_job_record
from mlscale.runs.overview import RunOverview, group_by_sweep, parse_sweep_id, summarize_run
from mlscale.runs.remote_checkpoints.run_store import find_checkpoint_store
from mlscale.runs.sweep_folder import FailedJob, find_sweep_folders, read_failed_jobs

_COLUMNS = ("id", "name", "started", "status", "metric", "time", "overrides")
# What a narrow terminal goes without, in this order, and widths that are still worth showing; ids stay whole.
_DROPPABLE_COLUMNS = ("overrides", "time", "started", "name", "metric")
_LEAST_WIDTHS = {"name": 8, "started": DATE, "overrides": 12}


def show_run_list(options: Options) -> Answer:
    """Return the runs as a table."""
    # Limited before the overviews, which read several files of each run.
    folders = list_runs(options.runs_dir)[: options.limit or None]
    statuses = find_run_statuses(folders)
    runs = [replace(summarize_run(run), status=statuses[run.id]) for run in folders]
    broken = find_corrupted_runs(options.runs_dir)
    groups = group_by_sweep(runs)
    failed = _find_failed_jobs(options, {sweep for sweep, _ in groups if sweep})
    reasons = {str(path): why for path, why in broken.items()}
    listed = [{"sweep": sweep, **asdict(job)} for sweep, jobs in failed.items() for job in jobs]
    rows: list[Sequence[object]] = []
    # The runs of a sweep are listed together, at the place of its newest run.
    for sweep, members in [*((sweep, []) for sweep in failed if sweep not in dict(groups)), *groups]:
        if sweep:
            rows.append(_format_sweep_row(sweep, members, failed.get(sweep, ())))
        # Indented below the line of their sweep.
        rows += [_format_run_row(member, "  " if sweep else "") for member in members]
        rows += [_format_job_row(job) for job in failed.get(sweep or "", ())]
    text = f"no runs in {options.runs_dir}; mlscale +recipe=resnet makes one"
    return Answer(
        "runs-ls",
        {"runs": [asdict(run) for run in runs], "damaged": reasons, "failed_jobs": listed},
        [format_fitted_table(rows, _COLUMNS, _LEAST_WIDTHS, _DROPPABLE_COLUMNS) if rows else text],
        [
            *(
                f"failed: job {job.job} of {parse_sweep_id(sweep)} ({job.error})"
                for sweep, jobs in failed.items()
                for job in jobs
            ),
            *(f"corrupt: {path} ({why})" for path, why in reasons.items()),
        ],
    )


def _find_failed_jobs(options: Options, shown: set[str]) -> dict[str, list[FailedJob]]:
    """Return the jobs that failed before they had a run, by the folder of their sweep, which may have no run at all."""
    folders = map(str, find_sweep_folders(options.runs_dir))
    # With a limit only the sweeps of the runs that are shown.
    failed = {path: read_failed_jobs(path) for path in folders if path in shown or not options.limit}
    return {path: jobs for path, jobs in failed.items() if jobs}


def _format_sweep_row(sweep: str, members: Sequence[RunOverview], failed: Sequence[FailedJob]) -> Sequence[object]:
    states = [*(member.status for member in members), *("failed" for _ in failed)]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    started = format_date(members[-1].created) if members else None
    return (parse_sweep_id(sweep), f"sweep of {len(states)}", started, counts, None, None, "")


def _format_job_row(job: FailedJob) -> Sequence[object]:
    return (f"  job {job.job}", "no run", None, "failed", None, None, " ".join(job.overrides))


def _format_run_row(run: RunOverview, indent: str) -> Sequence[object]:
    value = f"{run.metric} {format_number(run.value)}" if run.value is not None else None
    took = format_duration(run.duration_s) if run.duration_s is not None else None
    return (indent + run.id, run.name, format_date(run.created), run.status, value, took, " ".join(run.overrides))


_WAITING = ("queued", "requeued", "running", "elsewhere", "submitted", "written")
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


def describe_sweep(path: Path, runs: Sequence[RunFolder]) -> Answer:
    """Return the runs of a sweep, best first, and why others failed; exit code 4 if one failed."""
    failed = read_failed_jobs(path)
    statuses = find_run_statuses(runs)
    overviews = sorted(map(summarize_run, runs), key=_compute_rank)
    lost = list_lost_runs(runs, statuses)
    causes = {run.id: _UNSUBMITTED if statuses[run.id] == NOT_SUBMITTED else _find_cause(run) for run in lost}
    document = {
        "sweep": str(path),
        "runs": [{**asdict(view), "status": statuses[view.id]} for view in overviews],
        "lost": causes,
        "failed_jobs": [asdict(job) for job in failed],
    }
    shared = _find_shared_overrides(overviews, failed)
    rows = [_format_row(view, statuses[view.id], shared) for view in overviews]
    rows += [(f"job {job.job}", " ".join(job.overrides), "failed", "-") for job in failed]
    metric = next((view.metric for view in overviews if view.metric), None)
    table = format_table(rows, ("run", "overrides", "status", metric or "metric"))
    states = [*statuses.values(), *("failed" for _ in failed)]
    counts = {status: states.count(status) for status in dict.fromkeys(states)}
    notes = [
        f"\n{path.name}: {', '.join(f'{count} {status}' for status, count in counts.items())}",
        *(f"  {run.id}  {statuses[run.id]}: {causes[run.id]}" for run in lost),
        *(f"  job {job.job}  failed before it had a run: {job.error}" for job in failed),
        f"submit them again: mlscale runs sweep {path.name.rsplit('-', 1)[-1]} resubmit=true" if lost else "",
    ]
    return Answer("runs-sweep", document, [table], notes, Exit.GATE if lost or failed else Exit.DONE)


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


_DEFAULT_KEEP = ("last", "best")


@dataclass(frozen=True)
class RunUsage:
    """The space that a run takes, in bytes.

    Attributes:
        id, name, status: of the run.
        checkpoints: of the files in its folder `checkpoints`.
        servables: of exported models in it.
        rest: of all other files.
        removable: of the checkpoints that `mlscale runs gc` would remove.
    """

    id: str
    name: str
    status: str
    checkpoints: int
    servables: int
    rest: int
    removable: int

    @property
    def total(self) -> int:
        """The size of all its files."""
        return self.checkpoints + self.servables + self.rest


def show_disk_usage(options: Options) -> Answer:
    """Return the space that runs take, the largest first."""
    runs = [find_run(ref, options.runs_dir) for ref in options.ref] or list_runs(options.runs_dir)
    statuses = find_run_statuses(runs)
    plan = choose_removals(runs, _DEFAULT_KEEP, options.runs_dir, Path(options.registry_root))
    removable = {choice.run.id: choice.bytes for choice in plan.choices}
    usages = [_measure_run(run, statuses[run.id], removable.get(run.id, 0)) for run in runs]
    usages.sort(key=lambda usage: usage.total, reverse=True)
    total, free = sum(usage.total for usage in usages), sum(usage.removable for usage in usages)
    document = {
        "runs": [{**asdict(usage), "total": usage.total} for usage in usages],
        "total": total,
        "removable": free,
    }
    if not usages:
        return Answer("runs-du", document, [f"no runs in {options.runs_dir}"])
    rows = [
        (
            usage.id,
            usage.name,
            usage.status,
            *map(format_size, (usage.checkpoints, usage.servables, usage.rest, usage.total)),
        )
        for usage in usages[: options.limit or None]
    ]
    stores = format_count(sum(find_checkpoint_store(run.path) is not None for run in runs), "run")
    frees = f"; mlscale runs gc frees {format_size(free)} of it" if free else ""
    blocks = [
        format_table(rows, ("id", "name", "status", "checkpoints", "servables", "rest", "total")),
        f"not counted: checkpoints in object stores, of {stores}" if not stores.startswith("0 ") else "",
        f"{format_count(len(usages), 'run')}, {format_size(total)}{frees}",
    ]
    return Answer("runs-du", document, blocks)


def _measure_run(run: RunFolder, status: str, removable: int) -> RunUsage:
    sizes = {"checkpoints": 0, "servable": 0, "rest": 0}
    for path in iterate_regular_files(run.path):
        try:
            size = path.stat().st_size
        except FileNotFoundError:  # it still trains
            continue
        top = path.relative_to(run.path).parts[0]
        sizes[top if top in sizes else "rest"] += size
    return RunUsage(
        run.id, str(run.run["name"]), status, sizes["checkpoints"], sizes["servable"], sizes["rest"], removable
    )
