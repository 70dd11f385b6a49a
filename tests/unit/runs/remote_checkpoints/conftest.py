"""A bucket for checkpoints, and checkpoints to put there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.checkpoint_files.sharded_folder import STATE, write_parts
from tests.object_store import BUCKET, list_objects, serve_bucket


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    """A server for all tests of a module: to start one takes longer than a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        with serve_bucket(patch) as client:
            yield client


@pytest.fixture
def bucket(served: Any) -> Any:
    """A client of an empty bucket."""
    for key in list_objects(served):
        served.delete_object(Bucket=BUCKET, Key=key)
    return served


def write_checkpoint(path: Path, step: int, parts: str | None = None, **record: Any) -> Path:
    """Write a checkpoint whose content is its step."""
    writer = AtomicCheckpointWriter(path)
    torch.save({"step": step, "weights": torch.full((100,), float(step))}, writer)  # type: ignore[arg-type]
    kind = record.pop("kind", "last")
    writer.commit_checkpoint(CheckpointRecord(kind, step, 0, parts=parts, **record))
    return path


def write_folder(path: Path, step: int) -> Path:
    """Write a folder as a sharded checkpoint is one."""
    import hashlib

    path.mkdir()
    for rank in range(2):
        (path / f"__{rank}_0.distcp").write_bytes(b"%d" % (step + rank) * 1000)
    digests = {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in path.iterdir()}
    write_checkpoint(path / STATE, step, write_parts(path, digests))
    return path
