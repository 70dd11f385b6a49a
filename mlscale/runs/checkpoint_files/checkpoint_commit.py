"""Commit checkpoints: written aside, with a record and a digest inside, flushed, and renamed in one step."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path

from mlscale.atomic_files import ASIDE, PRIVATE_FILE, remove_unlocked, sync_folder
from mlscale.contracts import get_format_tag
from mlscale.file_locks import lock_file
from mlscale.runs.checkpoint_files.checkpoint_record import DIGEST_BYTES, LENGTH_BYTES, SUFFIX, CheckpointRecord
from mlscale.runs.checkpoint_files.sharded_folder import remove_incomplete_folders, replace_path
from mlscale.runs.identity import get_current_time

DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errors of a write that fails because of a full disk, a quota or the maximum size of a file."""


class AtomicCheckpointWriter:
    """A file object for `torch.save` that hashes what is written and is renamed to `path` once it is complete.

    A failed write is not raised at once, for torch would end the process: `commit_checkpoint` raises it.

    Args:
        path: the checkpoint; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._aside = path.with_name(f"{ASIDE}{path.name}-{secrets.token_hex(4)}")
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._held = b""  # the last bytes so far: at the end they are the length of the comment, which is not known yet
        self._error: OSError | None = None
        handle = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        self._file = os.fdopen(handle, "wb", buffering=0)
        with contextlib.suppress(
            OSError
        ):  # a file system without locks, where `remove_incomplete_checkpoints` removes nothing
            lock_file(handle)

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes of the archive and return their number."""
        view = memoryview(data).cast("B")
        # The last two bytes stay in `_held`: if the archive ends here, they are its comment's length.
        if len(view) < LENGTH_BYTES:
            view = memoryview(self._held + bytes(view))
        else:
            self._write_fully(memoryview(self._held))
        self._write_fully(view[:-LENGTH_BYTES])
        self._held = bytes(view[-LENGTH_BYTES:])
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Do nothing: no buffer is used, but torch calls it."""

    def commit_checkpoint(self, record: CheckpointRecord) -> CheckpointRecord:
        """Append the record and the digest, flush to the disk, rename the file, and return the record as written.

        Raises:
            OSError: a write failed; an older checkpoint of this name is left as it was.
        """
        # The size with the two bytes held back: they are replaced by the comment's real length, the size stays.
        count = self._bytes + len(self._held)
        written = CheckpointRecord(**{**asdict(record), "time": record.time or get_current_time(), "bytes": count})
        # The space ends the record: a digest has none, so a reader splits the comment at its last space.
        document = (
            json.dumps({"format": get_format_tag("checkpoint"), **asdict(written)}, allow_nan=False).encode() + b" "
        )
        self._write_fully(memoryview((len(document) + DIGEST_BYTES).to_bytes(LENGTH_BYTES, "little") + document))
        self._write_fully(memoryview(self._digest.hexdigest().encode()))
        try:
            if self._error is not None:
                raise self._error
            # Before the rename: after a power failure the name must not refer to content that never reached the disk.
            os.fsync(self._file.fileno())
            if self.path.is_dir():  # a sharded checkpoint, which a file can't replace by a rename
                replace_path(self._aside, self.path)
            else:
                self._aside.replace(self.path)
        except OSError:
            self.discard_partial()
            raise
        self._file.close()
        # A rename survives a power failure only once the folder is flushed as well.
        sync_folder(self.path.parent)
        return written

    def discard_partial(self) -> None:
        """Remove the incomplete file."""
        self._aside.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()

    def _write_fully(self, view: memoryview) -> None:
        """Write all of `view`; one system call writes at most 2 GiB, and less when the disk is nearly full."""
        while view and self._error is None:
            try:
                count = self._file.write(view)
            except OSError as error:
                self._error = error
                return
            self._digest.update(view[:count])
            self._bytes += count
            view = view[count:]


def remove_incomplete_checkpoints(folder: Path) -> None:
    """Remove incomplete files and folders of killed processes from `folder`; what is still being written is locked."""
    remove_incomplete_folders(folder)
    for path in folder.glob(f"{ASIDE}*{SUFFIX}-*"):
        remove_unlocked(path)
