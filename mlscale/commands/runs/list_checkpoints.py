"""`mlscale runs checkpoints`: the saved files of a run, and whether each is still as it was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlscale.atomic_files import create_write_error, iterate_regular_files, report_run_folder
from mlscale.commands.options import Options
from mlscale.commands.shown_facts import DATE, format_fitted_table
from mlscale.contracts.output_document import Answer
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.report import format_number, format_size
from mlscale.runs.amend import update_manifest
from mlscale.runs.checkpoint_files.checkpoint_commit import remove_incomplete_checkpoints
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX, CheckpointFile, describe_checkpoint_state
from mlscale.runs.checkpoint_files.checkpoint_search import find_latest_valid, get_progress_key, list_checkpoint_files
from mlscale.runs.find import find_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.lock import hold_run_lock
from mlscale.runs.remote_checkpoints.checkpoint_store import RemoteCheckpoint
from mlscale.runs.remote_checkpoints.run_store import find_checkpoint_store, find_missing, list_remote_checkpoints

_COLUMNS = ("name", "kind", "step", "epochs", "metric", "size", "saved", "digest")
_LEAST_WIDTHS = {"kind": 6, "saved": DATE}  # on a narrow terminal
_DROPPABLE_COLUMNS = ("epochs", "size", "kind", "saved")
_STATE_LABELS = {"unsigned": "no digest"}


def show_checkpoints(options: Options) -> Answer:
    """Read every checkpoint of the run, with a line for each; exit code 2 if any is torn or altered."""
    run = find_run(options.ref, options.runs_dir)
    checked = verify_checkpoints(run.path)
    own = (run.id, str(run.run["config_hash"]))
    # The same choice that `resume` makes, so that this list predicts it.
    latest, _ = find_latest_valid(run.path / "checkpoints", own)
    store = _read_store(run.path)
    document = {
        "run": str(run.path),
        "latest_valid": str(latest) if latest else None,
        "checkpoints": [_describe_checkpoint(stored) for stored in checked],
        **({"store": store.describe()} if store else {}),
    }
    blocks = [f"{run.path.name} has no checkpoints{' on this machine' if store else ''}"]
    if checked:
        rows = [_format_checkpoint_row(stored, run.path) for stored in checked]
        blocks = [format_fitted_table(rows, _COLUMNS, _LEAST_WIDTHS, _DROPPABLE_COLUMNS)]
        for stored in checked:
            if stored.is_corrupt:
                blocks.append(f"{stored.path}: {describe_checkpoint_state(stored)}")
            elif stored.record and (why := stored.record.explain_mismatch(*own)):
                blocks.append(f"{stored.path}: not one of this run: {why}")
        blocks.append(_describe_resume_point(run, latest, store))
    blocks += [store.format_line()] if store else []
    exit_code = Exit.USER if any(stored.is_corrupt for stored in checked) else Exit.DONE
    return Answer("runs-checkpoints", document, blocks, exit=exit_code)


@dataclass(frozen=True)
class _StoreContent:
    """The object store of a run: its checkpoints, or why they can't be read; and what it lacks of the folder's."""

    address: str
    checkpoints: Sequence[RemoteCheckpoint] = ()
    missing: Sequence[str] = ()
    error: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return its part of the document."""
        saved = [
            {"name": c.name, "step": c.record.step, "bytes": c.bytes, "complete": c.is_complete}
            for c in self.checkpoints
        ]
        return {"address": self.address, **({"error": self.error} if self.error else {}), "checkpoints": saved}

    def format_line(self) -> str:
        """Return its line under the table."""
        if self.error:
            return self.error
        saved = [
            f"{c.name} (step {c.record.step:,}{'' if c.is_complete else ', incomplete'})" for c in self.checkpoints
        ]
        missing = f"; not uploaded: {', '.join(self.missing)}" if self.missing else ""
        return f"in {self.address}: {', '.join(saved) or 'none'}{missing}"


def _read_store(run: Path) -> _StoreContent | None:
    if (address := find_checkpoint_store(run)) is None:
        return None
    try:
        remote = list_remote_checkpoints(run)
    except MLScaleError as error:  # what is in the folder is shown in any case
        return _StoreContent(address, error=f"{error.what} ({error.why})")
    missing = [saved.path.name for saved in find_missing(run / "checkpoints", remote)]
    return _StoreContent(address, remote, missing)


def _describe_resume_point(run: RunFolder, latest: Path | None, store: _StoreContent | None) -> str:
    if (status := run.status) in ("done", "diverged"):
        rest = f"; mlscale runs send {run.id} uploads what is missing" if store and store.missing else ""
        return f"the run {'is done' if status == 'done' else 'has diverged'}: there is nothing to resume{rest}"
    return f"the run resumes from {latest.name}" if latest else "there is none to resume from"


def verify_checkpoints(folder: Path) -> list[CheckpointFile]:
    """Return all checkpoints of a run, those of a user's own callbacks included, in the order of training."""
    # Anywhere in the run: a user's ModelCheckpoint may have a `dirpath` of its own.
    files = (path for path in iterate_regular_files(folder) if SUFFIX in (path.suffix, path.parent.suffix))
    # A sharded one is a folder: what is in it is not a checkpoint of its own.
    folders = dict.fromkeys(path.parent.parent if path.parent.suffix == SUFFIX else path.parent for path in files)
    checked = []
    for stored in (stored for parent in folders for stored in list_checkpoint_files(parent)):
        try:
            checked.append(verify_checkpoint(stored.path))
        except FileNotFoundError:  # the run still trains, and keeps only the latest
            continue
    return sorted(checked, key=get_progress_key)


def _format_checkpoint_row(stored: CheckpointFile, run: Path) -> Sequence[object]:
    record, inside = stored.record, run / "checkpoints"
    name = stored.path.relative_to(inside if stored.path.is_relative_to(inside) else run)
    state = _STATE_LABELS.get(stored.state, stored.state)
    if record is None:
        return (name, None, None, None, None, format_size(stored.bytes), None, state)
    kind = record.kind if record.resumable else f"{record.kind}, weights"
    metric = f"{record.metric} {format_number(record.value)}" if record.metric and record.value is not None else None
    return (
        name,
        kind,
        record.step,
        record.epoch,
        metric,
        format_size(stored.bytes),
        _format_save_time(record.time),
        state,
    )


def _format_save_time(time: str) -> str:
    return time[:19].replace("T", " ")


def _describe_checkpoint(stored: CheckpointFile) -> dict[str, Any]:
    names = ("kind", "step", "epoch", "metric", "value", "time", "resumable")
    record = asdict(stored.record) if stored.record else {}
    return {
        "path": str(stored.path),
        "bytes": stored.bytes,
        **{name: record.get(name) for name in names},
        "state": stored.state,
        **({"corruption": stored.corruption} if stored.corruption else {}),
    }


def consolidate_run(options: Options) -> Answer:
    """Replace each sharded checkpoint of the run by one file, and print a line for each; exit code 2 if one can't be
    read, and stays as it is.

    Raises:
        MLScaleError: one can't be read, once the others are files; a file can't be written; or another process works
            on the run.
    """
    run = find_run(options.ref, options.runs_dir)
    folder = run.path / "checkpoints"
    done: list[Path] = []
    failed: list[MLScaleError] = []
    with report_run_folder(run.path), hold_run_lock(run):
        remove_incomplete_checkpoints(folder)  # of an earlier one that was killed
        sharded = [stored.path for stored in list_checkpoint_files(folder) if stored.path.is_dir()]
        for path in sharded:
            try:
                _consolidate_checkpoint(run, path)
            except OSError as error:
                raise create_write_error(path, error) from error
            except MLScaleError as error:
                failed.append(
                    MLScaleError(
                        f"{path.name} stays a folder: {error.what}",
                        where=str(path),
                        why=error.why,
                        fix=f"mlscale runs checkpoints {run.id}, which shows the whole ones; or restore it from a copy",
                    )
                )
                continue
            done.append(path)
            if options.output != "json":
                print(f"{path.name}: one file of {format_size(path.stat().st_size)}")
    if options.output != "json":
        raise_all(failed)
    described = [{"path": error.where, "why": error.why or error.what} for error in failed]
    document = {"run": str(run.path), "consolidated": [str(path) for path in done], "failed": described}
    blocks = [] if sharded else [f"{run.path.name} has no sharded checkpoints"]
    return Answer("runs-consolidate", document, blocks, exit=Exit.USER if failed else Exit.DONE)


def _consolidate_checkpoint(run: RunFolder, path: Path) -> None:
    # On use: it imports torch.
    from mlscale.train.checkpoint.one_file import consolidate_checkpoint

    consolidate_checkpoint(path)
    update_manifest(run.path, path.relative_to(run.path).as_posix())
