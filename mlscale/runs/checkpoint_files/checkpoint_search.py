"""Find checkpoints in a folder: list them, the latest one that can be resumed from, and the best one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mlscale.config.names.suggest import find_nearest
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata, verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX, CheckpointFile, describe_checkpoint_state
from mlscale.runs.checkpoint_files.sharded_folder import has_sharded_parts, is_checkpoint
from mlscale.runs.identity import parse_start_time

_STEP = re.compile(r"(?:^|-)step=(\d{1,18})(?!\d)")
_NEVER = datetime.min.replace(tzinfo=UTC)


def list_checkpoint_files(folder: Path) -> list[CheckpointFile]:
    """Return the checkpoints in `folder`, unverified, sorted by the step and time of their records (a copied file has
    another date); those without a record come last."""
    checkpoints = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):  # another process may remove old checkpoints meanwhile
            if not path.name.startswith(".") and (path.is_file() or has_sharded_parts(path)):
                checkpoints.append(read_checkpoint_metadata(path))
    return sorted(checkpoints, key=get_progress_key)


def find_latest_valid(folder: Path, run_identity: tuple[str, str] | None = None) -> tuple[Path | None, list[str]]:
    """Return the checkpoint to resume from: the most advanced one with a valid digest; None where none has.

    Args:
        folder: the folder with checkpoints.
        run_identity: id and config hash of the run that it must be of; None for any.

    Returns:
        its path; and a sentence for each that was left out: later ones, and those without a record. Those with weights
        only are skipped without a sentence.
    """
    warnings = []
    # Verifying reads an entire file: from the latest on, so that usually only one is read.
    for checkpoint in reversed(list_checkpoint_files(folder)):
        if checkpoint.record is not None and not checkpoint.record.resumable:
            continue
        if (
            checkpoint.record is not None
            and run_identity is not None
            and (why := checkpoint.record.explain_mismatch(*run_identity))
        ):
            warnings.append(f"{checkpoint.path} is left out: {why}")
            continue
        try:
            checked = verify_checkpoint(checkpoint.path)
        except OSError as error:
            warnings.append(f"{checkpoint.path} is left out: it can't be read ({error.strerror})")
            continue
        if checked.state == "ok":
            return checkpoint.path, warnings
        warnings.append(f"{checkpoint.path} is left out: {describe_checkpoint_state(checked)}")
    return None, warnings


def suggest_resume(folder: Path) -> str:
    """Return the command that resumes the run in a folder, and where it resumes."""
    latest, _ = find_latest_valid(folder / "checkpoints")
    record = read_checkpoint_metadata(latest).record if latest else None
    where = f"from step {record.step:,}" if record else "which starts over: no checkpoint is there"
    run_id = folder.name.rpartition("-")[2]
    return f"mlscale runs resume {run_id if parse_start_time(run_id) else 'last'}, {where}"


def find_best_checkpoint_file(folder: Path, metric: str | None, mode: str | None) -> Path | None:
    """Return `best.ckpt`; without one, the best checkpoint by the recorded value of `metric` (`mode` is min or max;
    both are None for a run without a key metric). Where several of the best were kept at another time of the run, the
    best of them and `best.ckpt`."""
    best = folder / f"best{SUFFIX}"
    if is_checkpoint(best) and not any(folder.glob(f"best-*{SUFFIX}")):
        return best
    values = {
        checkpoint.path: checkpoint.record.value
        for checkpoint in list_checkpoint_files(folder)
        if checkpoint.record
        and checkpoint.record.kind == "best"
        and checkpoint.record.metric == metric
        and checkpoint.record.value is not None
        # Of a name of its own, where there is a `best.ckpt`: a user's callback that keeps others by the same metric.
        and (checkpoint.path.name.startswith("best") or not is_checkpoint(best))
    }
    if is_checkpoint(best) and best not in values:
        return best
    return (min if mode == "min" else max)(values, key=values.__getitem__, default=None)


def find_nearest_checkpoint(name: str, names: Sequence[str]) -> str | None:
    """Return the one of `names` that was most likely meant: of the nearest step, if a step was typed, else the nearest
    in its letters; None where none is near.
    """
    if step := _STEP.search(name):
        wanted = int(step[1])
        distances = {other: abs(int(match[1]) - wanted) for other in names if (match := _STEP.search(other))}
        return min(distances, key=distances.__getitem__, default=None)
    return find_nearest(name, names)


def get_progress_key(checkpoint: CheckpointFile) -> tuple[bool, int, datetime, str]:
    """Return a sort key: by the run's progress; checkpoints without a record come last."""
    record = checkpoint.record
    if record is None:
        return True, 0, _NEVER, checkpoint.path.name
    return False, record.step, datetime.fromisoformat(record.time), checkpoint.path.name
