"""Verify checkpoints by their digest, and read the record at their end without reading all of the file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from mlscale.contracts import expect_format
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_record import (
    DIGEST_BYTES,
    LENGTH_BYTES,
    CheckpointFile,
    CheckpointRecord,
    CheckpointState,
)
from mlscale.runs.checkpoint_files.sharded_folder import STATE, find_corrupt_parts, is_sharded, measure_folder

_END = b"PK\x05\x06"  # begins the last record of an archive, 22 bytes and the comment
_END_BYTES = 22
_BLOCK = 1 << 20
_STATE_CORRUPTION = {"torn": f"{STATE} is cut short, or no checkpoint", "altered": f"{STATE} is altered"}
_RECORD_MARKERS = (b'{"format": "mlscale/', b'"resumable": ')  # in every record; one of them is left after a bit error
_FORMAT_PATTERN = re.compile(rb'\{"format": "mlscale/checkpoint/[0-9]+"')


def verify_checkpoint(path: Path) -> CheckpointFile:
    """Read an entire checkpoint and compare it with its digest; of a sharded one, every part.

    Raises:
        OSError: it can't be read.
    """
    if path.is_dir():
        checkpoint = read_checkpoint_metadata(path)
        if checkpoint.state != "ok" or checkpoint.record is None:
            return checkpoint
        state = verify_checkpoint(path / STATE).state
        if state != "ok":
            return replace(checkpoint, state=state, corruption=_STATE_CORRUPTION.get(state, ""))
        corrupt = find_corrupt_parts(path, checkpoint.record.parts)
        return replace(checkpoint, state="altered", corruption=", ".join(corrupt)) if corrupt else checkpoint
    with path.open("rb") as file:  # opened once: a new checkpoint may take its name meanwhile
        checkpoint = _read_metadata(path, file)
        if checkpoint.state != "ok":
            return checkpoint
        file.seek(0)
        digest, left = hashlib.sha256(), checkpoint.bytes - DIGEST_BYTES
        while left and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
        matches = digest.hexdigest().encode() == file.read(DIGEST_BYTES)
        return checkpoint if matches else replace(checkpoint, state="altered")


def read_checkpoint_metadata(path: Path) -> CheckpointFile:
    """Read a checkpoint's metadata without reading all of the file: `ok` means that its end is intact."""
    if path.is_dir():
        # The state is written last: without it the folder is incomplete.
        if not is_sharded(path):
            return CheckpointFile(path, measure_folder(path), None, "torn", f"{STATE} is missing")
        state = read_checkpoint_metadata(path / STATE)
        return replace(state, path=path, bytes=measure_folder(path), corruption=_STATE_CORRUPTION.get(state.state, ""))
    with path.open("rb") as file:
        return _read_metadata(path, file)


def read_content_digest(path: Path) -> str:
    """Return the SHA-256 in the checkpoint, in hex; without one, the SHA-256 of the entire file. That of a sharded one
    covers the digests of its parts.

    Raises:
        OSError: it can't be read.
    """
    with (path / STATE if path.is_dir() else path).open("rb") as file:
        if _read_metadata(path, file).state == "ok":
            file.seek(-DIGEST_BYTES, os.SEEK_END)
            return file.read().decode()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_metadata(path: Path, file: BinaryIO) -> CheckpointFile:
    size = file.seek(0, os.SEEK_END)
    # The longest comment that a ZIP archive can have is 0xFFFF bytes.
    file.seek(max(0, size - _END_BYTES - 0xFFFF))
    state, record = _parse_metadata(file.read(), size, str(path))
    return CheckpointFile(path, size, record, state)


def _parse_metadata(tail: bytes, size: int, where: str) -> tuple[CheckpointState, CheckpointRecord | None]:
    """Return state and record from the end of a file of `size` bytes; the digest is not compared here."""
    comment = _find_zip_comment(tail)
    if comment is None:
        return "torn", None
    if not comment:
        return "unsigned", None
    document, _, digest = comment.rpartition(b" ")
    is_mlscale_record = any(word in document for word in _RECORD_MARKERS)
    if not is_mlscale_record:
        return "unsigned", None
    try:
        record = _parse_record(json.loads(document), where)
    except (ValueError, TypeError):
        return "altered", None
    except MLScaleError:
        # An intact format field means a later version of mlscale, which is not corruption.
        return ("unsigned" if _FORMAT_PATTERN.match(document) else "altered"), None
    whole = len(digest) == DIGEST_BYTES and record.bytes + len(comment) == size
    return ("ok" if whole else "altered"), record


def _find_zip_comment(tail: bytes) -> bytes | None:
    """Return the comment of the archive that ends with `tail`; None where `tail` is not the end of an archive."""
    # The signature may occur in the comment by chance: only a record whose comment ends with the file is the right one.
    for start in _find_end_records(tail):
        length = int.from_bytes(tail[start + _END_BYTES - LENGTH_BYTES : start + _END_BYTES], "little")
        if start + _END_BYTES + length == len(tail):
            return tail[start + _END_BYTES :]
    return None


def _find_end_records(tail: bytes) -> Iterator[int]:
    start = tail.rfind(_END)
    while start >= 0:
        yield start
        start = tail.rfind(_END, 0, start)


def _parse_record(document: object, where: str) -> CheckpointRecord:
    if not isinstance(document, dict):
        raise TypeError
    expect_format("checkpoint", document, where)
    record = CheckpointRecord(
        **{field.name: document[field.name] for field in fields(CheckpointRecord) if field.name in document}
    )
    if not (isinstance(record.step, int) and isinstance(record.bytes, int)):
        raise TypeError
    # `get_progress_key` compares times, and Python can't compare times with and without a zone.
    if datetime.fromisoformat(record.time).tzinfo is None:
        raise ValueError
    return record
