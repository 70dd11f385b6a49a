"""List, show, compare and remove runs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mlscale.atomic_files import remove_tree, report_run_folder
from mlscale.commands.options import Options, read_options
from mlscale.commands.runs import COMMAND
from mlscale.commands.runs.collect_checkpoints import collect_checkpoints
from mlscale.commands.runs.confirmation import confirm_removal, repeat_folder
from mlscale.commands.runs.disk_usage import show_disk_usage
from mlscale.commands.runs.job_actions import (
    cancel_runs,
    collect_log,
    find_live_jobs,
    find_run_statuses,
    print_log,
)
from mlscale.commands.runs.list_checkpoints import consolidate_run, show_checkpoints
from mlscale.commands.runs.run_comparison import show_difference
from mlscale.commands.runs.run_list import show_run_list
from mlscale.commands.runs.show_run import show_run
from mlscale.contracts.output_document import Answer, print_answer
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.runs.find import find_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.remote_checkpoints.run_store import find_checkpoint_store
from mlscale.runs.sweep_folder import SWEEP


def main(argv: Sequence[str]) -> int:
    """Run `mlscale runs …`; return the exit code.

    Raises:
        MLScaleError: no such run, or one that must not be removed.
    """
    options = read_options("runs", COMMAND.actions, argv)
    actions: dict[str, Callable[[Options], Answer | int]] = {
        "ls": show_run_list,
        "show": show_run,
        "resume": _resume_run,
        "checkpoints": show_checkpoints,
        "consolidate": consolidate_run,
        "diff": show_difference,
        "rm": _remove_runs,
        "job": _record_job,
        "send": _send_pending,
        "logs": _print_log,
        "cancel": _cancel_jobs,
        "sweep": _show_sweep,
        "du": show_disk_usage,
        "gc": collect_checkpoints,
    }
    answer = actions[options.action](options)
    # Those that print while they work, or were not confirmed, return an exit code.
    return answer if isinstance(answer, int) else print_answer(answer, options.output)


def _resume_run(options: Options) -> int:
    from mlscale import commands
    from mlscale.assembly.ready import compose_from_overrides
    from mlscale.launch.threads import wait_passively
    from mlscale.report import print_result
    from mlscale.secrets.mask import Masker, mask_output

    wait_passively()
    # The same as `mlscale train resume=…`: one implementation of resuming.
    try:
        cfg = compose_from_overrides("train", [f"resume={options.ref}", *options.overrides])
    except MLScaleError as error:
        if (near := error.fix.removeprefix("resume=")) != error.fix and near != options.ref:
            error.fix = shlex.join(["mlscale", "runs", "resume", near, *options.overrides])
        raise
    result = commands.run_checked_config("train", cfg)
    with mask_output(Masker.create_for_run(cfg)):
        print_result(result, cfg.output)
    return int(Exit.DONE if result.ok else Exit.GATE)


def _send_pending(options: Options) -> Answer:
    from mlscale.commands.runs.send_pending import send_pending

    run = find_run(options.ref, options.runs_dir)
    with report_run_folder(run.path):
        return send_pending(run)


def _print_log(options: Options) -> Answer | int:
    run = find_run(options.ref, options.runs_dir)
    if options.output == "json":
        return Answer("runs-logs", collect_log(run, follow=options.follow))
    return print_log(run, follow=options.follow)


def _record_job(options: Options) -> int:
    from mlscale.launch.slurm.job_guard import record_job

    if options.step not in ("start", "end"):
        what = f"unknown step '{options.step}' of a job"
        raise MLScaleError(what, where="mlscale runs job", fix="mlscale runs job start last")
    # A job's script passes the folder, which may not be visible here: only the guard explains that.
    is_path = os.sep in options.ref or Path(options.ref).is_dir()
    folder = Path(options.ref) if is_path else find_run(options.ref, options.runs_dir).path
    return record_job(options.step, folder, options.code)


def _cancel_jobs(options: Options) -> Answer:
    runs = list({run.path: run for run in (find_run(ref, options.runs_dir) for ref in options.ref)}.values())
    return Answer("runs-cancel", {"cancelled": [str(run.path) for run in runs]}, cancel_runs(runs))


def _show_sweep(options: Options) -> Answer:
    from mlscale.commands.runs.run_list import describe_sweep, find_sweep, list_lost_runs

    path, runs = find_sweep(options.ref, options.runs_dir)
    if options.resubmit:
        lost = list_lost_runs(runs, find_run_statuses(runs))
        if lost:
            from mlscale.commands.train.submission import resubmit_runs

            print(f"submitted array {resubmit_runs(path, lost)} for {len(lost)} of {len(runs)} runs", file=sys.stderr)
    return describe_sweep(path, runs)


def _remove_runs(options: Options) -> Answer | int:
    # By path: two names may mean the same run.
    runs = list({run.path: run for run in (find_run(ref, options.runs_dir) for ref in options.ref)}.values())
    raise_all(list(find_live_jobs(runs)))
    if not options.yes and not _confirm_removal(options, runs):
        return int(Exit.USER)
    stores = [store for run in runs if (store := find_checkpoint_store(run.path))]
    remove_runs(runs)
    for store in stores:
        print(f"its checkpoints stay in {store}: the store's own tools remove them", file=sys.stderr)
    return Answer("runs-rm", {"removed": [str(run.path) for run in runs]}, [f"removed {run.path}" for run in runs])


def _confirm_removal(options: Options, runs: Sequence[RunFolder]) -> bool:
    return confirm_removal(
        "runs",
        "\n".join(str(run.path) for run in runs),
        f"remove {'this run' if len(runs) == 1 else 'these runs'} for good?",
        ["mlscale", "runs", "rm", *options.ref],
        repeat_folder(options),
    )


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def remove_runs(runs: Sequence[RunFolder]) -> None:
    """Remove runs, and the folders of sweeps and dates that are empty then.

    Raises:
        MLScaleError: one of them is running, or may be, on another machine; then none is removed. Or its folder belongs
            to another user.
    """
    raise_all([_make_running_error(run) for run in runs if run.status in ("running", "elsewhere")])
    for run in runs:
        path = run.path.resolve()
        sweep = path.parent if run.run["sweep"] else None
        with report_run_folder(path, removes=True):
            _remove_folder(path)
        if sweep and (sweep / SWEEP).is_file() and not any(entry.is_dir() for entry in sweep.iterdir()):
            _remove_folder(sweep)  # no run is left in it
        date = sweep.parent if sweep else path.parent
        if _DATE.fullmatch(date.name):
            _remove_if_empty(date)


def _remove_folder(folder: Path) -> None:
    try:
        remove_tree(folder)
    except MLScaleError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        # Removing a folder takes write permission for it, and for its parent folder.
        raise MLScaleError(
            f"no permission to remove {folder.name}",
            where=str(folder),
            why=", ".join(
                f"{path} belongs to {_get_owner_name(path)}" for path in (folder, folder.parent) if path.exists()
            ),
            fix=f"ask {_get_owner_name(folder.parent)} to remove it, or to let you write to {folder.parent}",
            exit=Exit.ENVIRONMENT,
        ) from error


def _get_owner_name(folder: Path) -> str:
    if not folder.exists():
        return "its owner"
    try:
        return folder.owner()
    except KeyError:  # a user that this machine does not know, as on a network file system
        return f"user {folder.stat().st_uid}"


def _make_running_error(run: RunFolder) -> MLScaleError:
    host = run.run["attempts"][-1]["host"]
    return MLScaleError(
        f"run {run.id} is running"
        if run.status == "running"
        else f"run {run.id} was started on {host}, and never ended",
        where=str(run.path),
        why="a run that is still running would lose its folder",
        fix=f"kill {run.run['attempts'][-1]['pid']}, which lets it save and end, on {host}"
        if run.status == "running"
        else f"remove it on {host}",
    )


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
