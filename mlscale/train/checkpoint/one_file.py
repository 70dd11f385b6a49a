"""Write a sharded checkpoint as one file, in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file


def consolidate_checkpoint(path: Path) -> None:
    """Replace the folder of a sharded checkpoint by a file with the same state and the same record.

    Raises:
        MLScaleError: it is torn or altered.
        OSError: the file can't be written; the folder is left as it was.
    """
    record = read_checkpoint_metadata(path).record
    content = load_checkpoint_file(path)
    assert record is not None  # the load has verified it
    writer = AtomicCheckpointWriter(path)
    try:
        torch.save(content, cast("Any", writer))
    except BaseException:
        writer.discard_partial()
        raise
    writer.commit_checkpoint(replace(record, parts=None))
