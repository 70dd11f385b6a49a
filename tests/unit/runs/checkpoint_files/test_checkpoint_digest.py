"""Checkpoints are verified: any bit that changes is seen, and the record is read from the end alone."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from mlscale.runs.checkpoint_files.checkpoint_digest import (
    read_checkpoint_metadata,
    read_content_digest,
    verify_checkpoint,
)
from mlscale.runs.checkpoint_files.checkpoint_search import (
    find_latest_valid,
)
from tests.unit.runs.checkpoint_files.saved_checkpoints import flip, save


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


def test_one_of_a_later_format_is_not_misread(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 7)
    path.write_bytes(path.read_bytes().replace(b"mlscale/checkpoint/1", b"mlscale/checkpoint/9"))
    assert verify_checkpoint(path).state == "unsigned"
    assert find_latest_valid(tmp_path)[0] is None


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
