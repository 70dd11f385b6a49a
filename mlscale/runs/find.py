"""Find runs: by id, by the beginning of an id or a name, by path, or the last one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlscale.atomic_files import ASIDE
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.local_paths import expect_local_path
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import is_cloud_run
from mlscale.runs.recover import is_run_folder, warn_once
from mlscale.runs.remote_checkpoints.run_copy import fetch_run
from mlscale.runs.remote_checkpoints.store_access import is_remote
from mlscale.runs.run_reader import RUN

LAST = "last"
_SHOWN = 5  # of several runs that a name may mean


def find_run(ref: str | Path, root: str | Path = "runs") -> RunFolder:
    """Return the run for `ref`: a path, an id, the unique beginning of an id or of a folder's name, or 'last'; or the
    address of its object store, from which its folder is written below `root` where it is not there.

    Raises:
        MLScaleError: no run matches, or more than one.
    """
    text = str(ref)
    if is_remote(text):
        address = text.rstrip("/")
        exact, _ = match_runs(address.rpartition("/")[2], root)
        # By what it records: another run may have this name, and the last one is always called so.
        here = (run for run in exact if run.run.get("checkpoint_store") == address)
        return next(here, None) or RunFolder.open(fetch_run(text, Path(root)))
    if text and is_run_folder(Path(text)):
        return RunFolder.open(text)
    if Path(text).name == RUN and Path(text).is_file():
        return RunFolder.open(Path(text).parent)
    exact, partial = match_runs(text, root)
    matches = exact or partial
    if not matches:
        raise build_run_not_found(text, root)
    if len(matches) > 1:
        names = [run.path.name for run in matches[:_SHOWN]]
        more = f", and {len(matches) - _SHOWN} more: mlscale runs ls" if len(matches) > _SHOWN else ""
        raise MLScaleError(
            f"'{text}' means {len(matches)} runs",
            where=str(root),
            why=f"the ids or names of several begin with it{more}",
            fix="\n".join(names),
        )
    return matches[0]


def find_run_of_path(path: Path) -> str | None:
    """Return the run folder that a file or folder is in; None outside of one."""
    return next((str(folder) for folder in (path, *path.parents) if (folder / RUN).is_file()), None)


def match_runs(text: str, root: str | Path = "runs") -> tuple[list[RunFolder], list[RunFolder]]:
    """Return the runs that `text` names in full (an id, a folder's name, or 'last'), and those whose id or folder name
    begins with it.

    Raises:
        MLScaleError: `root` is an address.
    """
    expect_local_path("runs_dir", str(root), f"command line: runs_dir={root}", "the folder of runs")
    runs = list_runs(root)
    if text == LAST:
        _report_corrupted(find_corrupted_runs(root), runs)
        return runs[:1], []
    exact = [run for run in runs if text in (run.id, run.path.name)]
    return exact, [run for run in runs if text and (run.id.startswith(text) or run.path.name.startswith(text))]


def build_run_not_found(text: str, root: str | Path = "runs") -> MLScaleError:
    """Return the error for a name that no run has; its fix depends on the runs that exist."""
    runs, broken = list_runs(root), find_corrupted_runs(root)
    if not runs and broken:
        _report_corrupted(broken, runs)
        return MLScaleError(
            "no run here can be read",
            where=", ".join(map(str, broken)),
            why=next(iter(broken.values())),
            fix=getattr(_get_open_error(next(iter(broken))), "fix", ""),
        )
    if not runs:
        return MLScaleError(
            "no runs found",
            where=str(root),
            fix="mlscale +recipe=resnet\nruns_dir=<another folder>",
        )
    # `runs ls` shows sweeps by their id, too.
    sweep_runs = [run for run in runs if text and run.run["sweep"] == text]
    if sweep_runs:
        names = ", ".join(run.id for run in sweep_runs)
        what = f"{text!r} is a sweep, not a run"
        return MLScaleError(what, where=str(root), why=f"its runs are {names}", fix=sweep_runs[0].id)
    for path in broken:
        if text and (path.name.startswith(text) or path.name.rpartition("-")[2].startswith(text)):
            return _get_open_error(path) or MLScaleError(
                f"{path.name} can't be read",
                where=str(path),
                why=broken[path],
                fix="mlscale runs ls: what is lost",
            )
    near = find_nearest(text, [LAST, *(name for run in runs for name in (run.id, run.path.name))])
    return MLScaleError(f"no run {text!r}", where=str(root), fix=near or "mlscale runs ls")


def _report_corrupted(broken: dict[Path, str], runs: list[RunFolder]) -> None:
    """Report folders that can't be read and may be newer than the last run that can."""
    for path, why in broken.items():
        # Ids sort by time, and a folder's name ends with the id.
        if not runs or path.name.rsplit("-", 1)[-1] > runs[0].id:
            warn_once(f"{path} can't be read ({why}), and is not the last run for that")


def list_runs(root: str | Path = "runs") -> list[RunFolder]:
    """Return the runs below `root`, those of sweeps included, newest first, without corrupted ones: see
    `find_corrupted_runs`."""
    readable = []
    for path in find_run_folders(root):
        try:
            readable.append(RunFolder.open(path))
        except MLScaleError:
            continue
    return sorted(readable, key=lambda run: (run.run["created"], run.id), reverse=True)


def find_corrupted_runs(root: str | Path = "runs") -> dict[Path, str]:
    """Return the run folders below `root` that can't be read, each with the reason."""
    broken = {}
    for path in find_run_folders(root):
        if error := _get_open_error(path):
            broken[path] = error.why or error.what
    return broken


def _get_open_error(path: Path) -> MLScaleError | None:
    """Return the error that opening a run raises; None where it can be read."""
    try:
        RunFolder.open(path)
    except MLScaleError as error:
        return error
    return None


_MAX_CHECKED_RUNS = 200  # of the newest runs: a folder may hold tens of thousands


def find_unfinished_run(
    config_hash: str, code: str | None, root: str | Path = "runs", *, exclude_id: str | None = None
) -> RunFolder | None:
    """Return the newest run of this config and code, `exclude_id` excluded; None if it is done or has diverged."""
    run = find_newest_run(config_hash, code, root, exclude_id=exclude_id)
    # The newest match decides: an older unfinished run is not resumed once a later one is done.
    return run if run is not None and run.status not in ("done", "diverged") else None


def find_newest_run(
    config_hash: str, code: str | None, root: str | Path = "runs", *, exclude_id: str | None = None
) -> RunFolder | None:
    """Return the newest run of this config and code, `exclude_id` excluded."""
    # Sorted by the id in the folder's name: the date in its path has no time, and run.json is not read for it.
    paths = sorted(find_run_folders(root), key=lambda path: path.name.rsplit("-", 1)[-1], reverse=True)
    for path in paths[:_MAX_CHECKED_RUNS]:
        try:
            run = RunFolder.open(path)
        except MLScaleError:
            continue
        document = run.run
        if document["id"] == exclude_id:
            continue
        digest = (document["code"] or {}).get("digest")
        # Of a run that a cloud trains this folder has no checkpoint: resumed here, it would restart.
        if document["config_hash"] == config_hash and digest == code and not is_cloud_run(path):
            return run
    return None


def find_run_folders(root: str | Path) -> Iterator[Path]:
    """Yield every run's folder, corrupted ones included: `<root>/<date>/<run>` and `<root>/<date>/<sweep>/<run>`."""
    for date in _list_subfolders(Path(root)):
        for entry in _list_subfolders(date):
            if is_run_folder(entry):
                yield entry
            else:  # a sweep
                yield from (run for run in _list_subfolders(entry) if is_run_folder(run))


def _list_subfolders(parent: Path) -> list[Path]:
    try:
        entries = [entry for entry in parent.iterdir() if not entry.name.startswith(ASIDE) and entry.is_dir()]
    except (NotADirectoryError, FileNotFoundError, PermissionError):
        return []
    return sorted(entries)
