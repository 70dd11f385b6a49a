"""Checkpoints are committed: whole, private, readable by torch, whenever the process is killed."""

import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from mlscale.runs.checkpoint_files import checkpoint_commit
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter, remove_incomplete_checkpoints
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.checkpoint_files.checkpoint_search import (
    find_latest_valid,
)
from tests.unit.runs.checkpoint_files.saved_checkpoints import save


def test_every_reader_reads_it(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 7)
    for mmap in (False, True):
        assert torch.load(path, weights_only=True, mmap=mmap)["weights"][4999] == 4999
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    checked = verify_checkpoint(path)
    assert (checked.state, checked.bytes) == ("ok", path.stat().st_size)
    assert checked.record is not None
    assert (checked.record.kind, checked.record.step, checked.record.resumable) == ("last", 7, True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_all_of_it_is_on_the_disk_before_it_gets_its_name_and_the_name_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "last.ckpt", []

    def note_file(handle: int) -> None:
        steps.append(("content", os.fstat(handle).st_size, path.exists()))

    def note_folder(folder: Path) -> None:
        steps.append(("name", path.stat().st_size, folder == tmp_path))

    monkeypatch.setattr(os, "fsync", note_file)
    monkeypatch.setattr(checkpoint_commit, "sync_folder", note_folder)
    save(path, 7)
    assert steps == [("content", path.stat().st_size, False), ("name", path.stat().st_size, True)]


def test_the_archive_is_what_torch_writes(tmp_path: Path) -> None:
    value = {"weights": torch.arange(5000), "step": 7}
    torch.save(value, tmp_path / "theirs.pt")
    writer = AtomicCheckpointWriter(tmp_path / "ours.ckpt")
    torch.save(value, writer)  # type: ignore[arg-type]
    record = writer.commit_checkpoint(CheckpointRecord("other", 7, 0))
    ours = (tmp_path / "ours.ckpt").read_bytes()[: record.bytes]
    with zipfile.ZipFile(tmp_path / "theirs.pt") as first, zipfile.ZipFile(tmp_path / "ours.ckpt") as second:
        read = [[archive.read(info) for info in archive.infolist()] for archive in (first, second)]
    assert read[0] == read[1]
    assert ours[:2] == b"PK"


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save(path, 2, size=50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    checked = verify_checkpoint(path)
    assert checked.state == "ok"
    assert checked.record is not None
    assert checked.record.step == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


WRITE = """
import os, sys, torch
from pathlib import Path
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
while sys.stdin.readline():  # a process for each kill, and torch is imported once
    if not (pid := os.fork()):
        break
    os.waitpid(pid, 0)
    print("ended", flush=True)
else:
    sys.exit()
weights = torch.randn(2_000_000)
for step in range(1, 10_000):
    writer = AtomicCheckpointWriter(Path(sys.argv[1]))
    torch.save({"step": step, "weights": weights}, writer)
    writer.commit_checkpoint(CheckpointRecord("last", step, 0))
    print(os.getpid(), flush=True)  # the first line is awaited before the kill
"""


def test_killed_at_any_moment_a_name_holds_a_whole_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 0)
    aside = 0
    command = [sys.executable, "-c", WRITE, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as writing:
        assert writing.stdin is not None
        assert writing.stdout is not None
        for kill in range(6):
            writing.stdin.write("\n")
            child = int(writing.stdout.readline())
            time.sleep(0.02 + kill * 0.013)
            os.kill(child, signal.SIGKILL)
            assert "ended\n" in iter(writing.stdout.readline, "")
            aside += check_killed(path)
    assert aside > 0  # at least one was killed while it wrote


def check_killed(path: Path) -> int:
    """A checkpoint is there, whole; how many half-written ones were beside it."""
    checked = verify_checkpoint(path)
    assert checked.state == "ok"
    assert checked.record is not None
    assert checked.record.step > 0  # the child commits
    assert torch.load(path, weights_only=True)["step"] == checked.record.step
    assert find_latest_valid(path.parent) == (path, [])
    aside = len(list(path.parent.glob(".aside-*")))
    remove_incomplete_checkpoints(path.parent)
    assert [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]
    return aside


def test_tidying_up_leaves_what_is_being_written(tmp_path: Path) -> None:
    writer = AtomicCheckpointWriter(tmp_path / "last.ckpt")
    torch.save({"step": 1}, writer)  # type: ignore[arg-type]
    shutil.copy(next(tmp_path.glob(".aside-*")), tmp_path / ".aside-best.ckpt-0123")
    remove_incomplete_checkpoints(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    writer.commit_checkpoint(CheckpointRecord("last", 1, 0))
    assert verify_checkpoint(tmp_path / "last.ckpt").state == "ok"


def test_an_empty_archive_is_unsigned_and_what_is_no_archive_torn(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for content, state in ((b"PK\5\6" + bytes(18), "unsigned"), (b"PK\5\6" + bytes(17), "torn"), (b"", "torn")):
        path.write_bytes(content)
        assert verify_checkpoint(path).state == state
    path.write_bytes(b"PK\5\6" + bytes(16) + (4).to_bytes(2, "little") + b"PK\5\6")  # a comment like a beginning
    assert verify_checkpoint(path).state == "unsigned"


def test_a_value_that_is_no_number_of_json_is_refused(tmp_path: Path) -> None:
    writer = AtomicCheckpointWriter(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="JSON"):
        writer.commit_checkpoint(CheckpointRecord("best", 1, 0, value=float("nan")))
    writer.discard_partial()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "parts", [[b"a"], [b"ab", b"c"], [b"a", b"b", b"c", b"d"], [b"", b"abcdef", b""], [b"abc"] * 9]
)
def test_whatever_the_parts_all_is_written_but_the_length(tmp_path: Path, parts: list[bytes]) -> None:
    whole = b"".join(parts)
    writer = AtomicCheckpointWriter(tmp_path / "a.ckpt")
    assert [writer.write(part) for part in parts] == [len(part) for part in parts]
    record = writer.commit_checkpoint(CheckpointRecord("other", 1, 0))
    content = (tmp_path / "a.ckpt").read_bytes()
    assert record.bytes == len(whole)
    assert content[: max(0, len(whole) - 2)] == whole[:-2]
    digest = hashlib.sha256(content[:-64]).hexdigest()
    assert content[-64:].decode() == digest
