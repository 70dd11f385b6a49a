"""Checkpoints on the disk: committed, verified, found by what they say of themselves."""

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

from mlscale.runs.checkpoint_files import (
    CheckpointRecord,
    Writer,
    find_best_checkpoint_file,
    find_latest_valid,
    list_checkpoint_files,
    read_checkpoint_metadata,
    read_content_digest,
    remove_incomplete_checkpoints,
    verify_checkpoint,
)


def save(path: Path, step: int, *, resumable: bool = True, size: int = 5000, time: str = "") -> Path:
    """A checkpoint of our own."""
    writer = Writer(path)
    torch.save({"step": step, "weights": torch.arange(size)}, writer)  # type: ignore[arg-type]  # a file is what writes
    writer.commit_checkpoint(CheckpointRecord("last", step, 0, resumable, time=time))
    return path


def flip(path: Path, place: int) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


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


def test_the_archive_is_what_torch_writes(tmp_path: Path) -> None:
    value = {"weights": torch.arange(5000), "step": 7}
    torch.save(value, tmp_path / "theirs.pt")
    writer = Writer(tmp_path / "ours.ckpt")
    torch.save(value, writer)  # type: ignore[arg-type]
    record = writer.commit_checkpoint(CheckpointRecord("other", 7, 0))
    ours = (tmp_path / "ours.ckpt").read_bytes()[: record.bytes]
    with zipfile.ZipFile(tmp_path / "theirs.pt") as first, zipfile.ZipFile(tmp_path / "ours.ckpt") as second:
        read = [[archive.read(info) for info in archive.infolist()] for archive in (first, second)]
    assert read[0] == read[1]
    assert ours[:2] == b"PK"


@pytest.mark.parametrize("part", ["weights", "directory", "length", "record", "digest"])
def test_any_bit_that_changes_is_seen(tmp_path: Path, part: str) -> None:
    path = save(tmp_path / "last.ckpt", 7)
    record = verify_checkpoint(path).record
    assert record is not None
    places = {"weights": 9000, "directory": record.bytes - 40, "length": record.bytes - 1, "record": record.bytes + 60}
    flip(path, places.get(part, -1))
    assert verify_checkpoint(path).is_corrupt


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, -1])
def test_a_torn_one_is_seen(tmp_path: Path, left: float) -> None:
    path = save(tmp_path / "last.ckpt", 7)
    size = path.stat().st_size
    os.truncate(path, int(size * left) if 0 < left < 1 else int(left) % size)
    assert verify_checkpoint(path).state == "torn"


def test_any_bit_of_the_record_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 7)
    record, content = verify_checkpoint(path).record, path.read_bytes()
    assert record is not None
    for place in range(record.bytes, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert verify_checkpoint(path).state != "ok", content[place - 10 : place + 10]
        assert find_latest_valid(tmp_path)[0] is None


def test_bytes_at_the_end_are_seen(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 7)
    with path.open("ab") as file:
        file.write(b"more")
    assert verify_checkpoint(path).is_corrupt


def test_a_foreign_one_is_unsigned_not_bad(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    checked = verify_checkpoint(tmp_path / "foreign.ckpt")
    assert (checked.state, checked.is_corrupt, checked.record) == ("unsigned", False, None)
    with zipfile.ZipFile(tmp_path / "foreign.ckpt", "a") as archive:
        archive.comment = b"a comment of somebody's " + b"a" * 64
    assert verify_checkpoint(tmp_path / "foreign.ckpt").state == "unsigned"


def test_an_empty_archive_is_unsigned_and_what_is_no_archive_torn(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for content, state in ((b"PK\5\6" + bytes(18), "unsigned"), (b"PK\5\6" + bytes(17), "torn"), (b"", "torn")):
        path.write_bytes(content)
        assert verify_checkpoint(path).state == state
    path.write_bytes(b"PK\5\6" + bytes(16) + (4).to_bytes(2, "little") + b"PK\5\6")  # a comment like a beginning
    assert verify_checkpoint(path).state == "unsigned"


def test_a_value_that_is_no_number_of_json_is_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="JSON"):
        writer.commit_checkpoint(CheckpointRecord("best", 1, 0, value=float("nan")))
    writer.discard_partial()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "parts", [[b"a"], [b"ab", b"c"], [b"a", b"b", b"c", b"d"], [b"", b"abcdef", b""], [b"abc"] * 9]
)
def test_whatever_the_parts_all_is_written_but_the_length(tmp_path: Path, parts: list[bytes]) -> None:
    whole = b"".join(parts)
    writer = Writer(tmp_path / "a.ckpt")
    assert [writer.write(part) for part in parts] == [len(part) for part in parts]
    record = writer.commit_checkpoint(CheckpointRecord("other", 1, 0))
    content = (tmp_path / "a.ckpt").read_bytes()
    assert record.bytes == len(whole)
    assert content[: max(0, len(whole) - 2)] == whole[:-2]
    digest = hashlib.sha256(content[:-64]).hexdigest()
    assert content[-64:].decode() == digest


def test_one_of_a_later_format_is_not_misread(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 7)
    path.write_bytes(path.read_bytes().replace(b"mlscale/checkpoint/1", b"mlscale/checkpoint/9"))
    assert verify_checkpoint(path).state == "unsigned"
    assert find_latest_valid(tmp_path)[0] is None


def test_latest_valid_goes_by_the_recorded_step(tmp_path: Path) -> None:
    for name, step in (("c", 10), ("a", 30), ("b", 20)):
        save(tmp_path / f"{name}.ckpt", step)
    assert [found.path.stem for found in list_checkpoint_files(tmp_path)] == ["c", "b", "a"]
    os.utime(tmp_path / "c.ckpt")  # the date says nothing
    assert find_latest_valid(tmp_path) == (tmp_path / "a.ckpt", [])
    flip(tmp_path / "a.ckpt", 9000)
    path, warnings = find_latest_valid(tmp_path)
    assert path == tmp_path / "b.ckpt"
    assert len(warnings) == 1
    assert "a.ckpt is left out: its content is not what was written" in warnings[0]
    os.truncate(tmp_path / "b.ckpt", 3000)
    path, warnings = find_latest_valid(tmp_path)
    assert path == tmp_path / "c.ckpt"
    assert sorted(warning.split(" is ")[0][-6:] for warning in warnings) == ["a.ckpt", "b.ckpt"]
    (tmp_path / "c.ckpt").unlink()
    assert find_latest_valid(tmp_path)[0] is None


def test_latest_valid_of_one_step_is_the_later_written(tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", 5, time="2026-01-01T00:00:02.000+00:00")
    save(tmp_path / "b.ckpt", 5, time="2026-01-01T00:00:01.000+00:00")
    assert find_latest_valid(tmp_path)[0] == tmp_path / "a.ckpt"


def test_weights_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    save(tmp_path / "full.ckpt", 1)
    save(tmp_path / "weights.ckpt", 2, resumable=False)
    assert find_latest_valid(tmp_path) == (tmp_path / "full.ckpt", [])


def test_the_best_by_whatever_name(tmp_path: Path) -> None:
    for name, metric, value in (("a", "loss", 0.5), ("b", "loss", 0.2), ("c", "loss", 0.3), ("d", "other", 0.1)):
        writer = Writer(tmp_path / f"{name}.ckpt")
        torch.save({}, writer)  # type: ignore[arg-type]
        writer.commit_checkpoint(CheckpointRecord("best", 1, 0, metric=metric, value=value))
    save(tmp_path / "last.ckpt", 1)
    assert find_best_checkpoint_file(tmp_path, "loss", "min") == tmp_path / "b.ckpt"
    assert find_best_checkpoint_file(tmp_path, "loss", "max") == tmp_path / "a.ckpt"
    assert find_best_checkpoint_file(tmp_path, "accuracy", "max") is None
    save(tmp_path / "best.ckpt", 1)
    assert find_best_checkpoint_file(tmp_path, "loss", "min") == tmp_path / "best.ckpt"


def test_a_checkpoint_of_another_run_is_left_out(tmp_path: Path) -> None:
    def of(name: str, step: int, run: str | None, config_hash: str | None = "abc") -> None:
        writer = Writer(tmp_path / f"{name}.ckpt")
        torch.save({"step": step}, writer)  # type: ignore[arg-type]
        writer.commit_checkpoint(CheckpointRecord("last", step, 0, run=run, config_hash=config_hash))

    of("own", 3, "mine")
    of("theirs", 9, "other")
    of("changed", 8, "mine", "def")
    path, left_out = find_latest_valid(tmp_path, ("mine", "abc"))
    assert path == tmp_path / "own.ckpt"
    assert left_out == [
        f"{tmp_path / 'theirs.ckpt'} is left out: it is of the run other",
        f"{tmp_path / 'changed.ckpt'} is left out: it was saved with other settings",
    ]
    of("old", 10, None, None)  # of an earlier mlscale, which named no run
    assert find_latest_valid(tmp_path, ("mine", "abc")) == (tmp_path / "old.ckpt", [])


def test_an_empty_or_missing_folder(tmp_path: Path) -> None:
    assert find_latest_valid(tmp_path) == (None, [])
    assert find_latest_valid(tmp_path / "none") == (None, [])


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
import sys, torch
from pathlib import Path
from mlscale.runs.checkpoint_files import CheckpointRecord, Writer
weights = torch.randn(2_000_000)
print("ready", flush=True)
for step in range(1, 10_000):
    writer = Writer(Path(sys.argv[1]))
    torch.save({"step": step, "weights": weights}, writer)
    writer.commit_checkpoint(CheckpointRecord("last", step, 0))
"""


def test_killed_at_any_moment_a_name_holds_a_whole_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 0)
    aside = 0
    for kill in range(6):
        child = subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.02 + kill * 0.013)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        checked = verify_checkpoint(path)
        assert checked.state == "ok"
        assert checked.record is not None
        assert torch.load(path, weights_only=True)["step"] == checked.record.step
        assert find_latest_valid(tmp_path) == (path, [])
        aside += len(list(tmp_path.glob(".aside-*")))
        remove_incomplete_checkpoints(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]
    assert aside > 0  # at least one was killed while it wrote


def test_tidying_up_leaves_what_is_being_written(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "last.ckpt")
    torch.save({"step": 1}, writer)  # type: ignore[arg-type]
    shutil.copy(next(tmp_path.glob(".aside-*")), tmp_path / ".aside-best.ckpt-0123")
    remove_incomplete_checkpoints(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    writer.commit_checkpoint(CheckpointRecord("last", 1, 0))
    assert verify_checkpoint(tmp_path / "last.ckpt").state == "ok"


def test_looking_reads_the_end_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 7)
    flip(path, 9000)
    found = read_checkpoint_metadata(path)
    assert found.state == "ok"
    assert found.record is not None
    assert found.record.step == 7


def test_a_digest_names_the_content_and_a_copy_takes_it_along(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.ckpt", 7), save(tmp_path / "b.ckpt", 8)
    shutil.copy(first, tmp_path / "copy.ckpt")
    assert read_content_digest(first) == read_content_digest(tmp_path / "copy.ckpt") != read_content_digest(second)
    assert first.read_bytes().endswith(read_content_digest(first).encode())
    torch.save({"a": torch.zeros(3)}, tmp_path / "theirs.pt")  # carries none: that of the file
    assert (
        read_content_digest(tmp_path / "theirs.pt") == hashlib.sha256((tmp_path / "theirs.pt").read_bytes()).hexdigest()
    )
