"""The object store of a run, as commands use it: what is in it, downloads of what the folder has lost, removals."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import read_content_digest, verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX, CheckpointFile
from mlscale.runs.checkpoint_files.checkpoint_search import find_latest_valid, list_checkpoint_files
from mlscale.runs.checkpoint_files.sharded_folder import REPLACED, is_checkpoint
from mlscale.runs.recover import is_run_folder, read_run_document
from mlscale.runs.remote_checkpoints.checkpoint_store import RUN_FOLDER, CheckpointStore, RemoteCheckpoint
from mlscale.runs.remote_checkpoints.run_copy import store_run_files
from mlscale.runs.remote_checkpoints.store_access import RECORDED, create_access_error, describe_store_error, open_store

_KEY = "checkpoint_store"  # of run.json


def find_checkpoint_store(run: Path) -> str | None:
    """Return the address of a run's checkpoints; None where it has none."""
    address = read_run_document(run).get(_KEY) if is_run_folder(run) else None
    return str(address) if address else None


def open_run_store(run: Path) -> CheckpointStore | None:
    """Return the store of a run's checkpoints; None where it has none.

    Raises:
        MLScaleError: its package is not installed.
    """
    address = find_checkpoint_store(run)
    return open_store(address, RECORDED) if address else None


def list_remote_checkpoints(run: Path) -> list[RemoteCheckpoint]:
    """Return the checkpoints of a run in its object store; none where it has no store.

    Raises:
        MLScaleError: the store can't be read.
    """
    store = open_run_store(run)
    try:
        return store.list_checkpoints() if store else []
    except Exception as error:  # of any package, and of the network
        assert store is not None
        raise create_access_error(store.address, RECORDED, error) from error


def find_missing(folder: Path, remote: Sequence[RemoteCheckpoint]) -> list[CheckpointFile]:
    """Return the checkpoints in `folder` that a store with the checkpoints `remote` lacks, or has of other content."""
    uploaded = {checkpoint.name: checkpoint.digest for checkpoint in remote if checkpoint.is_complete}
    missing = []
    for saved in list_checkpoint_files(folder):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            # One of another name for a moment: `replace_path` removes it.
            is_old = saved.path.name.endswith(REPLACED)
            if not is_old and saved.state == "ok" and uploaded.get(saved.path.name) != read_content_digest(saved.path):
                missing.append(saved)
    return missing


def upload_missing(run: Path) -> list[str]:
    """Upload what the store of a run lacks, and return a line for each; the caller holds the run's lock.

    Raises:
        MLScaleError: the store can't be written to.
    """
    if (store := open_run_store(run)) is None:
        return []
    lines = []
    try:
        missing = find_missing(run / "checkpoints", store.list_checkpoints())
        if missing:
            store.remove_incomplete()
        files = store_run_files(store, run)
        for saved in missing:
            if saved.record and verify_checkpoint(saved.path).state == "ok":
                store.put_checkpoint(saved.path.name, saved.path)
                lines.append(f"upload    {saved.path.name}, step {saved.record.step:,}, to {store.address}")
        lines += [f"upload    {', '.join(files)}, to {store.address}/{RUN_FOLDER}"] if files else []
    except Exception as error:  # of any package, and of the network
        raise create_access_error(store.address, RECORDED, error, "written to") from error
    return lines


def store_ended_run(run: Path) -> list[str]:
    """Store the results and the seal of a run that has ended; return a warning where that fails."""
    try:
        if (store := open_run_store(run)) is not None:
            store_run_files(store, run)
    except Exception as error:  # of any package, and of the network: the run has ended, whatever its store does
        why = error.what if isinstance(error, MLScaleError) else describe_store_error(error)
        run_id = run.name.rpartition("-")[2]
        address = find_checkpoint_store(run)
        return [f"warning   the end of the run is not in {address}: {why}; mlscale runs send {run_id} uploads it"]
    return []


def restore_latest(run: Path, identity: tuple[str, str]) -> list[str]:
    """Download what the store has where it is ahead of the run's folder; return a line for each.

    Args:
        run: the run's folder.
        identity: its id and config hash: another run's checkpoints are left out.

    Raises:
        MLScaleError: the store can't be read, and the folder has no checkpoint either.
    """
    if find_checkpoint_store(run) is None:
        return []
    folder = run / "checkpoints"
    latest, _ = find_latest_valid(folder, identity)
    steps = {saved.path: saved.record.step for saved in list_checkpoint_files(folder) if saved.record}
    try:
        remote = [
            checkpoint
            for checkpoint in list_remote_checkpoints(run)
            if checkpoint.is_complete and not checkpoint.record.explain_mismatch(*identity)
        ]
        ahead = max((checkpoint.record.step for checkpoint in remote if checkpoint.record.resumable), default=-1)
        if latest is not None and ahead <= steps.get(latest, -1):
            return []
        # A process that was killed may not have removed earlier periodic ones: the next uploader does.
        periodic = [checkpoint for checkpoint in remote if checkpoint.record.kind == "periodic"]
        return _fetch_checkpoints(run, [checkpoint for checkpoint in remote if checkpoint not in periodic[:-1]])
    except MLScaleError as error:
        if latest is None:
            raise
        return [f"warning   {error.what}: {error.why}; the folder's own checkpoints are used"]


def restore_missing(run: Path, name: str) -> None:
    """Download the checkpoint `name` of a run, such as `best`, where its folder has lost it; in place of `best` the
    last one, where the store has no best either.

    Raises:
        MLScaleError: the store can't be read, and the folder has no checkpoint at all.
    """
    folder = run / "checkpoints"
    if find_checkpoint_store(run) is None or _has_checkpoint(folder, name):
        return
    local = list_checkpoint_files(folder)
    try:
        remote = [checkpoint for checkpoint in list_remote_checkpoints(run) if checkpoint.is_complete]
    except MLScaleError as error:
        if not local:
            raise
        print(f"warning   {error.what}: {error.why}; the folder has no {name}", file=sys.stderr, flush=True)
        return
    file = Path(name).name
    wanted = [c for c in remote if c.name in (file, f"{file}{SUFFIX}") or (name == "best" and c.record.kind == "best")]
    if not wanted and name == "best" and not is_checkpoint(folder / f"last{SUFFIX}"):
        wanted = [checkpoint for checkpoint in remote if checkpoint.name == f"last{SUFFIX}"]
    for line in _fetch_checkpoints(run, wanted):
        print(line, file=sys.stderr, flush=True)


def _has_checkpoint(folder: Path, name: str) -> bool:
    if name == "best":
        saved = list_checkpoint_files(folder)
        return any(file.path.name.startswith("best") or (file.record and file.record.kind == "best") for file in saved)
    # A name, with its suffix or without, or a path.
    return any(is_checkpoint(path) for path in (folder / name, folder / f"{name}{SUFFIX}", Path(name)))


def remove_from_store(run: Path, names: Sequence[str]) -> str:
    """Remove checkpoints of a run in its object store; return why they are still there, empty where they are not."""
    try:
        if (store := open_run_store(run)) is not None:
            for name in names:
                store.remove_checkpoint(name)
    except Exception as error:  # of any package, and of the network
        why = error.what if isinstance(error, MLScaleError) else describe_store_error(error)
        return f"still in {find_checkpoint_store(run)}: {', '.join(names)} ({why})"
    return ""


def _fetch_checkpoints(run: Path, remote: Sequence[RemoteCheckpoint]) -> list[str]:
    store, lines = open_run_store(run), []
    assert store is not None
    for checkpoint in remote:
        try:
            store.fetch_checkpoint(checkpoint, run / "checkpoints")
        except MLScaleError as error:
            lines.append(f"{error.where} is left out: {error.why}")
            continue
        except Exception as error:
            raise create_access_error(store.address, RECORDED, error) from error
        lines.append(f"download  {checkpoint.name}, step {checkpoint.record.step:,}, from {store.address}")
    return lines
