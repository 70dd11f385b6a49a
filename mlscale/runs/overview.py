"""The overview of a run: one line of `mlscale runs ls`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlscale.runs.folder import RunFolder


@dataclass(frozen=True)
class RunOverview:
    """The columns that `runs ls` shows of a run.

    Attributes:
        id, name, verb, status: as in run.json and `RunFolder.status`.
        created: ISO 8601.
        metric: the name of the run's key metric; None where it has none.
        value: the metric's best value, else its last; None before the first one.
        duration_s: of the last attempt; of a running one, until now; None for one that crashed.
        overrides: as typed, secrets masked.
        sweep: the folder of its sweep; None for a run outside of sweeps.
        path: the run folder.
    """

    id: str
    name: str
    verb: str
    status: str
    created: str
    metric: str | None
    value: float | None
    duration_s: float | None
    overrides: tuple[str, ...]
    sweep: str | None
    path: str


def summarize_run(run: RunFolder) -> RunOverview:
    """Return the overview of a run."""
    document, manifest, status = run.run, run.manifest, run.status
    metrics, metric = (manifest or {}).get("metrics", {}), document.get("metric")
    # A crash leaves no manifest, and so no end from which a duration could be computed.
    took = manifest["duration_s"] if manifest else None
    if status == "running":
        began = datetime.fromisoformat(document["attempts"][-1]["started"])
        # With a time zone: run.json states one, and Python refuses to subtract a time that has none.
        took = (datetime.now().astimezone() - began).total_seconds()
    return RunOverview(
        id=run.id,
        name=document["name"],
        verb=document["verb"],
        status=status,
        created=document["created"],
        metric=metric,
        value=metrics.get(f"best_{metric}", metrics.get(metric)) if metric else None,
        duration_s=took,
        overrides=tuple(document["overrides"]),
        sweep=str(run.path.parent) if document["sweep"] else None,
        path=str(run.path),
    )


def group_by_sweep(runs: Iterable[RunOverview]) -> list[tuple[str | None, list[RunOverview]]]:
    """Return runs grouped by sweep, in the order of each group's first; a run outside of sweeps is its own group."""
    groups: dict[str, tuple[str | None, list[RunOverview]]] = {}
    for run in runs:
        # A path is unique and never that of a sweep, so that it can stand for a group of one.
        groups.setdefault(run.sweep or run.path, (run.sweep, []))[1].append(run)
    return list(groups.values())


def parse_sweep_id(sweep: str) -> str:
    """Return the id at the end of a sweep folder's name."""
    return Path(sweep).name.rsplit("-", 1)[-1]
