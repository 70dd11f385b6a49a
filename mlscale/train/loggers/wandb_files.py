"""The files in which W&B's client records runs before it sends them: how many rows of a run they have."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

# LevelDB's log format behind a header of W&B's own: blocks with pieces of crc, length, kind and data.
_HEADER, _BLOCK, _PIECE = 7, 32768, struct.Struct("<IHB")
_WHOLE, _FIRST, _LAST = 1, 2, 4


def count_recorded_rows(folder: Path, run_id: str, *, but: Path) -> dict[Path, int]:
    """Return the rows of a run in the folders of its earlier attempts, in the order in which `wandb sync` sends them.

    Without those that have none: a client that is killed early leaves a file that it can't read itself.

    Args:
        folder: W&B's, with a folder for each attempt.
        but: the folder of the current attempt.
    """
    paths = sorted(folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb"))
    rows = {path.parent: _count_rows(path) for path in paths if path.parent.name != but.name}
    return {path: count for path, count in rows.items() if count}


def _count_rows(path: Path) -> int:
    protocol: Any = import_module("wandb.proto.wandb_internal_pb2")  # generated, without types
    return sum(protocol.Record.FromString(data).WhichOneof("record_type") == "history" for data in _read_records(path))


def _read_records(path: Path) -> Iterator[bytes]:
    """Yield the whole records; what was cut off when the process was killed is not sent either."""
    log, at, pieces = path.read_bytes(), _HEADER, b""
    while at + _PIECE.size <= len(log):
        left = _BLOCK - at % _BLOCK
        if left < _PIECE.size:  # too little of the block is left for another piece
            at += left
            continue
        _, length, kind = _PIECE.unpack_from(log, at)
        at += _PIECE.size + length
        if not _WHOLE <= kind <= _LAST or at > len(log):
            return
        pieces = (b"" if kind in (_WHOLE, _FIRST) else pieces) + log[at - length : at]
        if kind in (_WHOLE, _LAST):
            yield pieces
