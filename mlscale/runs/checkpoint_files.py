"""Checkpoint files: write them aside and commit by one rename, with a digest inside; find, list and verify them.

A checkpoint is the ZIP archive that `torch.save` writes. Its comment, a field that every reader of archives skips,
holds a record (contract 'checkpoint') and the SHA-256 of all bytes before the digest. So there is one file, which
one rename replaces: whenever a process is killed, a name holds the old checkpoint or the new one, each whole and with
its digest, and `cp` takes the digest along. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from mlscale.atomic_files import ASIDE, PRIVATE_FILE, lock_file, remove_unlocked, sync_folder
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.runs.identity import get_current_time

SUFFIX = ".ckpt"
PERIODIC = re.compile(rf"step=\d+{re.escape(SUFFIX)}")
"""The file names of periodic checkpoints, written every N steps or minutes."""
DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errors of a write that fails because of a full disk, a quota or the maximum size of a file."""

CheckpointKind = Literal["best", "last", "periodic", "other"]
CheckpointState = Literal["ok", "torn", "altered", "unsigned"]

_END = b"PK\x05\x06"  # begins the last record of an archive, 22 bytes and the comment
_END_BYTES = 22
_LENGTH_BYTES = 2  # the comment's length, the last field before the comment
_DIGEST_BYTES = 64
_BLOCK = 1 << 20
_RECORD_MARKERS = (b'{"format": "mlscale/', b'"resumable": ')  # in every record; one of them is left after a bit error
_NEVER = datetime.min.replace(tzinfo=UTC)
_FORMAT_PATTERN = re.compile(rb'\{"format": "mlscale/checkpoint/[0-9]+"')


@dataclass(frozen=True)
class CheckpointRecord:
    """The metadata in a checkpoint; the fields of the contract 'checkpoint'.

    Attributes:
        kind: the policy that wrote it.
        step: optimizer steps of the run so far.
        epoch: epochs that had ended when it was saved.
        resumable: True if it holds the state of the training, not only weights.
        metric, value: what the callback that wrote it watches, and its value then.
        time: ISO 8601, with its time zone.
        bytes: of the archive, without the record; set when it is committed.
        run: the id of the run that it is of; None where that is not recorded.
        config_hash: of what that run computes.
    """

    kind: CheckpointKind
    step: int
    epoch: int
    resumable: bool = True
    metric: str | None = None
    value: float | None = None
    time: str = ""
    bytes: int = 0
    run: str | None = None
    config_hash: str | None = None

    def explain_mismatch(self, run: str, config_hash: str) -> str:
        """Return why it is not a checkpoint of that run; empty where it is, and where it does not name its run."""
        if self.run not in (None, run):
            return f"it is of the run {self.run}"
        if self.config_hash not in (None, config_hash):
            return "it was saved with other settings"
        return ""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file and its state.

    Attributes:
        path: the file.
        bytes: its size.
        record: its metadata; None where they can't be read.
        state: ok; torn: truncated, or not a checkpoint; altered: its content does not match its digest; unsigned: a
            complete archive that was not written by mlscale, so that changes can't be detected.
    """

    path: Path
    bytes: int
    record: CheckpointRecord | None
    state: CheckpointState

    @property
    def is_corrupt(self) -> bool:
        """True if it must not be used."""
        return self.state in ("torn", "altered")


class Writer:
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
        if len(view) < _LENGTH_BYTES:
            view = memoryview(self._held + bytes(view))
        else:
            self._write_fully(memoryview(self._held))
        self._write_fully(view[:-_LENGTH_BYTES])
        self._held = bytes(view[-_LENGTH_BYTES:])
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
        self._write_fully(memoryview((len(document) + _DIGEST_BYTES).to_bytes(_LENGTH_BYTES, "little") + document))
        self._write_fully(memoryview(self._digest.hexdigest().encode()))
        try:
            if self._error is not None:
                raise self._error
            # Before the rename: after a power failure the name must not refer to content that never reached the disk.
            os.fsync(self._file.fileno())
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


def verify_checkpoint(path: Path) -> CheckpointFile:
    """Read an entire checkpoint and compare it with its digest.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:  # opened once: a new checkpoint may take its name meanwhile
        checkpoint = _read_metadata(path, file)
        if checkpoint.state != "ok":
            return checkpoint
        file.seek(0)
        digest, left = hashlib.sha256(), checkpoint.bytes - _DIGEST_BYTES
        while left and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
        matches = digest.hexdigest().encode() == file.read(_DIGEST_BYTES)
        return checkpoint if matches else replace(checkpoint, state="altered")


def read_checkpoint_metadata(path: Path) -> CheckpointFile:
    """Read a checkpoint's metadata without reading all of the file: `ok` means that its end is intact."""
    with path.open("rb") as file:
        return _read_metadata(path, file)


def read_content_digest(path: Path) -> str:
    """Return the SHA-256 in the checkpoint, in hex; without one, the SHA-256 of the entire file.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        if _read_metadata(path, file).state == "ok":
            file.seek(-_DIGEST_BYTES, os.SEEK_END)
            return file.read().decode()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_checkpoint_files(folder: Path) -> list[CheckpointFile]:
    """Return the checkpoints in `folder`, unverified, sorted by the step and time of their records (a copied file has
    another date); those without a record come last."""
    checkpoints = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):  # another process may remove old checkpoints meanwhile
            if not path.name.startswith(".") and path.is_file():
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


def find_best_checkpoint_file(folder: Path, metric: str | None, mode: str | None) -> Path | None:
    """Return `best.ckpt`; without one, the best checkpoint by the recorded value of `metric` (`mode` is min or max;
    both are None for a run without a key metric)."""
    if (folder / f"best{SUFFIX}").is_file():
        return folder / f"best{SUFFIX}"
    values = {
        checkpoint.path: checkpoint.record.value
        for checkpoint in list_checkpoint_files(folder)
        if checkpoint.record
        and checkpoint.record.kind == "best"
        and checkpoint.record.metric == metric
        and checkpoint.record.value is not None
    }
    return (min if mode == "min" else max)(values, key=values.__getitem__, default=None)


def describe_checkpoint_state(checkpoint: CheckpointFile) -> str:
    """Return a sentence for the state of a checkpoint."""
    return {
        "ok": "its digest holds",
        "torn": "it is cut short, or no checkpoint",
        "altered": "its content is not what was written: the digest differs",
        "unsigned": "it holds no digest, so it was not written by mlscale",
    }[checkpoint.state]


def remove_incomplete_checkpoints(folder: Path) -> None:
    """Remove incomplete files of killed processes from `folder`; a file that is still being written is locked."""
    for path in folder.glob(f"{ASIDE}*{SUFFIX}-*"):
        remove_unlocked(path)


def get_progress_key(checkpoint: CheckpointFile) -> tuple[bool, int, datetime, str]:
    """Return a sort key: by the run's progress; checkpoints without a record come last."""
    record = checkpoint.record
    if record is None:
        return True, 0, _NEVER, checkpoint.path.name
    return False, record.step, datetime.fromisoformat(record.time), checkpoint.path.name


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
    whole = len(digest) == _DIGEST_BYTES and record.bytes + len(comment) == size
    return ("ok" if whole else "altered"), record


def _find_zip_comment(tail: bytes) -> bytes | None:
    """Return the comment of the archive that ends with `tail`; None where `tail` is not the end of an archive."""
    # The signature may occur in the comment by chance: only a record whose comment ends with the file is the right one.
    for start in _find_end_records(tail):
        length = int.from_bytes(tail[start + _END_BYTES - _LENGTH_BYTES : start + _END_BYTES], "little")
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
