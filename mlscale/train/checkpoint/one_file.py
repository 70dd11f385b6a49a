"""Write a checkpoint as one file: a new one, or in place of a sharded one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file


def write_checkpoint_file(path: Path, content: Mapping[str, Any], record: CheckpointRecord) -> None:
    """Write a file aside, and commit it with its record. If that fails, on Ctrl-C, too, no unfinished file is left."""
    writer = AtomicCheckpointWriter(path)
    try:
        torch.save(content, cast("Any", writer))
    except BaseException:
        writer.discard_partial()
        raise
    writer.commit_checkpoint(record)


def consolidate_checkpoint(path: Path) -> None:
    """Replace the folder of a sharded checkpoint by a file with the same state and the same record.

    Raises:
        MLScaleError: it is torn or altered.
        OSError: the file can't be written; the folder is left as it was.
    """
    record = read_checkpoint_metadata(path).record
    content = load_checkpoint_file(path)
    assert record is not None  # the load has verified it
    write_checkpoint_file(path, content, replace(record, parts=None))
