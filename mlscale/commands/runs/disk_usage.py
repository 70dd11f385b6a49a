"""`mlscale runs du`: how much space each run takes, and how much of that `mlscale runs gc` would free."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mlscale.atomic_files import iterate_regular_files
from mlscale.commands.options import Options
from mlscale.commands.runs.collect_checkpoints import choose_removals
from mlscale.commands.runs.job_actions import find_run_statuses
from mlscale.contracts.output_document import Answer
from mlscale.report import format_size, format_table
from mlscale.report.text import format_count
from mlscale.runs.find import find_run, list_runs
from mlscale.runs.folder import RunFolder
from mlscale.runs.remote_checkpoints.run_store import find_checkpoint_store

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
