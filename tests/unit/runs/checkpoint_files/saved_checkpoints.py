"""Checkpoints for the tests of this package, whole and with a changed bit."""

from pathlib import Path

import torch

from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord


def save(path: Path, step: int, *, resumable: bool = True, size: int = 5000, time: str = "") -> Path:
    """A checkpoint of our own."""
    writer = AtomicCheckpointWriter(path)
    torch.save({"step": step, "weights": torch.arange(size)}, writer)  # type: ignore[arg-type]  # a file is what writes
    writer.commit_checkpoint(CheckpointRecord("last", step, 0, resumable, time=time))
    return path


def flip(path: Path, place: int) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
