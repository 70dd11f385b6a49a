"""Messages about saves: warnings of full disks, and the error for a checkpoint that can't be written.

The checkpoints that a run has saved, for the messages of runs that diverge.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from mlscale.atomic_files import explain_os_error
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


def print_warning(message: str, label: str = "warning") -> None:
    """Print a warning, or another line, to standard error."""
    with contextlib.suppress(OSError):  # standard error may be a file on the disk that is full
        tqdm.write(f"{label:<10}{message}", file=sys.stderr)  # above a progress bar
        sys.stderr.flush()


def format_disk_full(target: Path, record: CheckpointRecord, error: OSError) -> str:
    """Return the warning of a save that has failed because the disk is full."""
    names = [checkpoint.path.name for checkpoint in list_checkpoint_files(target.parent) if checkpoint.record]
    return (
        f"disk full: {target} was not saved at step {record.step}: {explain_os_error(error, target)} "
        f"({shutil.disk_usage(target.parent).free:,} bytes free). The training continues; "
        f"{'what was saved before stays: ' + ', '.join(names) if names else 'nothing is saved yet'}."
    )


def build_write_error(target: Path, error: OSError) -> MLScaleError:
    """Return the error for a checkpoint that can't be written."""
    return MLScaleError(
        f"can't write the checkpoint {target.name}",
        where=str(target),
        why=explain_os_error(error, target),
        fix="runs_dir=<a folder you may write to>, or dirpath= of the callback that saves",
        exit=Exit.ENVIRONMENT,
    )


def list_saved_checkpoints(trainer: Trainer) -> list[str]:
    """Return the names of the checkpoints that exist; callbacks may save to several folders."""
    folders = {
        str(folder) for callback in trainer.checkpoint_callbacks if (folder := getattr(callback, "dirpath", None))
    }
    return sorted({path.name for folder in folders for path in Path(folder).glob("*.ckpt")})


def describe_kept_checkpoints(names: Sequence[str]) -> str:
    """Return what a run that diverged can be resumed from, in words."""
    if not names:
        return "no checkpoint had been saved before"
    return f"the last good checkpoint is kept: {', '.join(names)}"
