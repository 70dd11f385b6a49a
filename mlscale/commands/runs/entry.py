"""List, show, compare and remove runs.

`mlscale runs show`: the start of one run, its results, checkpoints and config.

`mlscale runs send`: what a tracker or an object store did not take while the run ran.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.atomic_files import remove_tree, report_run_folder
from mlscale.commands.options import Options, read_options
from mlscale.commands.runs import COMMAND
from mlscale.commands.runs.collect_checkpoints import collect_checkpoints, confirm_removal, repeat_folder
from mlscale.commands.runs.job_actions import (
    cancel_runs,
    collect_log,
    describe_job,
    find_live_jobs,
    find_run_statuses,
    print_log,
)
from mlscale.commands.runs.list_checkpoints import consolidate_run, show_checkpoints
from mlscale.commands.runs.run_comparison import show_difference
from mlscale.commands.runs.run_list import show_disk_usage, show_run_list
from mlscale.commands.shown_facts import format_commit, format_date, format_section, list_metrics, select_known
from mlscale.contracts.output_document import Answer, print_answer
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.report import format_duration, format_key_values, format_size
from mlscale.runs.checkpoint_files.sharded_folder import measure_checkpoint
from mlscale.runs.edited import report_edits
from mlscale.runs.find import find_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.lock import hold_run_lock
from mlscale.runs.remote_checkpoints.run_store import find_checkpoint_store, upload_missing
from mlscale.runs.sweep_folder import SWEEP

if TYPE_CHECKING:
    from mlscale.train.loggers.mlflow_client import MLflowEntrySender


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
    from mlscale.config.composition.offered_fixes import offer_fixes
    from mlscale.launch.threads import wait_passively
    from mlscale.report import print_result
    from mlscale.secrets.mask import Masker, mask_output

    wait_passively()
    # The same as `mlscale train resume=…`: one implementation of resuming.
    words = [f"resume={options.ref}", *options.overrides]
    try:
        with offer_fixes(words, "train"):
            cfg = compose_from_overrides("train", words)
    except MLScaleError as error:
        if (near := error.fix.removeprefix("resume=")) != error.fix and near != options.ref:
            error.fix = shlex.join(["mlscale", "runs", "resume", near, *options.overrides])
        raise
    result = commands.run_checked_config("train", cfg)
    with mask_output(Masker.create_for_run(cfg)):
        print_result(result, cfg.output)
    return int(Exit.DONE if result.ok else Exit.GATE)


def _send_pending(options: Options) -> Answer:

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


def show_run(options: Options) -> Answer:
    """Return one run; exit code 2 where a file is not as it was sealed, and verify=true asked."""
    run = find_run(options.ref, options.runs_dir)
    document, manifest = run.run, run.manifest
    # On request only: it reads every file of the run, checkpoints included.
    changed = run.find_changed_artefacts() if options.verify else None
    checkpoints = [(path.relative_to(run.path).as_posix(), measure_checkpoint(path)) for path in run.checkpoints]
    status = find_run_statuses([run])[run.id]
    report_edits(run)
    content = {"path": str(run.path), "status": status, "run": document, "manifest": manifest, "changed": changed}
    content |= {"results": run.results, "derived": run.derived, "config": run.config_text}
    about = [*_describe_run(document, manifest), *describe_job(run, status)]
    blocks = [format_key_values([("run", run.path), ("status", status), *about])]
    for command, result in run.results.items():
        metrics = list_metrics(result["metrics"], command)
        text = result["sentence"] + ("\n" + format_key_values(metrics, indent=2) if metrics else "")
        blocks.append(format_section(f"result of {command}", text))
    sizes = [(name, format_size(count)) for name, count in checkpoints]
    blocks += [
        format_section("checkpoints", format_key_values(sizes, indent=2)),
        format_section("derived", format_key_values(list(run.derived.items()), indent=2)),
        # Masked again: a run of an earlier version, or an edited one, may hold a literal secret.
        format_section("config", run.masker.mask_text(run.config_text).rstrip()),
    ]
    if changed is not None:
        verdict = "\n".join(changed) if changed else "every file is as it was sealed" if manifest else "not sealed yet"
        blocks.append(format_section("files that changed since the seal", verdict))
    return Answer("runs-show", content, blocks, exit=Exit.USER if changed else Exit.DONE)


def _describe_run(document: dict[str, Any], manifest: dict[str, Any] | None) -> list[tuple[str, object]]:
    rows = [
        ("started", format_date(document["created"])),
        ("took", format_duration(manifest["duration_s"]) if manifest else None),
        ("verb", document["verb"]),
        ("overrides", " ".join(document["overrides"]) or None),
        ("seed", document["seed"]),
        ("data", document["data_version"]),
        ("commit", format_commit(document["code"] or {})),
        ("parent", document["parent"]),
        ("tags", " ".join(document.get("tags", [])) or None),
        ("notes", document.get("notes") or None),
        ("attempts", len(document["attempts"]) if len(document["attempts"]) > 1 else None),
        ("ended", manifest.get("sentence") or None if manifest else None),
    ]
    return select_known(rows)


_ITEMS_PER_REQUEST = 20  # MLflow's server limits what it takes in one request
_LOCK_SECONDS = 10.0


def send_pending(run: RunFolder) -> Answer:
    """Upload what the object store of a run lacks, and send its waiting entries to the tracker that they are for.

    Raises:
        MLScaleError: the store or the server does not take it (exit code 5).
    """
    uploads, unstored = _upload_missing(run)
    sent, server = _send_entries(run)
    if unstored is not None:
        raise unstored
    return Answer(
        "runs-send",
        {"run": str(run.path), "sent": sent, "server": server, "uploaded": len(uploads)},
        [*uploads, f"{server}: {sent:,} entries of {run.path.name} sent" if sent else ""],
        [] if sent or uploads else [f"nothing of {run.path.name} waits to be sent"],
    )


def _upload_missing(run: RunFolder) -> tuple[list[str], MLScaleError | None]:
    """Return a line for each upload, and the error of a store that can't be written to: entries are sent anyway."""
    # A run that trains uploads on its own.
    if find_checkpoint_store(run.path) is None or run.status == "running":
        return [], None
    try:
        with hold_run_lock(run):
            return upload_missing(run.path), None
    except MLScaleError as error:
        return [], error


def _send_entries(run: RunFolder) -> tuple[int, str | None]:
    """Send the waiting entries of a run folder to the MLflow server that they were meant for, those that were given up
    included; none is sent twice. Return their number, and the server.

    Raises:
        MLScaleError: the server does not take it (exit code 5).
    """
    from mlscale.export.required_extras import require_extra
    from mlscale.train.loggers.tracker_outbox import open_tracker_outbox

    outbox = open_tracker_outbox(run.path / "logs")
    outbox.restore_failed()
    if not outbox.count_items() and not outbox.count_failed():
        return 0, None
    require_extra("mlflow", "mlflow")
    senders = _SendersByAddress()
    report = outbox.send_items(
        senders.send_bodies, max_batch=_ITEMS_PER_REQUEST, ignore_backoff=True, lock_s=_LOCK_SECONDS
    )
    outbox.remove_if_empty()
    if report.waiting or outbox.count_failed():
        raise MLScaleError(
            f"{senders.where} does not take the entries",
            where=str(outbox.folder),
            why="; ".join([*filter(None, [report.why]), *report.failed])[:300],
            fix=f"mlscale runs send {run.id}, once the server answers",
            exit=Exit.ENVIRONMENT,
        )
    return senders.sent, senders.where


class _SendersByAddress:
    """The clients of the servers that a run's entries are for; usually one."""

    def __init__(self) -> None:
        self._clients: dict[str, MLflowEntrySender] = {}
        self.sent, self.where = 0, "MLflow"

    def send_bodies(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Send entries in order, each to its own server."""
        from mlscale.train.loggers.mlflow_client import MLflowEntrySender, MLflowTarget

        for name, group in groupby(bodies, lambda body: json.dumps(body["address"], sort_keys=True)):
            entries = [entry for body in group for entry in body["entries"]]
            if name not in self._clients:
                self._clients[name] = MLflowEntrySender(MLflowTarget(**json.loads(name)))
            self.where = self._clients[name].where
            self._clients[name].send(entries)
            self.sent += len(entries)
