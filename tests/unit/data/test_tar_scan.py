"""Headers of tars: what is read here is what tarfile reads, and damage is told."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlscale.data import tar_scan
from mlscale.data.tar_scan import Sample, scan

LONG = "folder/" * 20 + "a"


def write(path: Path, names: list[str], kind: int, mtime: float = 0) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = number * 300, mtime
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def by_tarfile(path: Path) -> list[tuple[str, dict[str, tuple[int, int]]]]:
    """Each sample of 'key.extension' members."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isreg():
                key, extension = member.name.split(".")
                found.setdefault(key, {})[extension] = (member.offset_data, member.size)
    return list(found.items())


@pytest.mark.parametrize(
    ("kind", "key", "mtime", "plain"),
    [
        (tarfile.USTAR_FORMAT, "a", 0, True),
        (tarfile.USTAR_FORMAT, LONG, 0, True),  # in the prefix field
        (tarfile.PAX_FORMAT, "a", 1234567.5, True),  # an extended header, as webdataset's writer has it
        (tarfile.PAX_FORMAT, "ä", 0, False),
        (tarfile.PAX_FORMAT, LONG, 0, False),
        (tarfile.GNU_FORMAT, "ä", 0, True),
        (tarfile.GNU_FORMAT, LONG, 0, False),
    ],
)
def test_samples_are_those_of_tarfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, key: str, mtime: float, plain: bool
) -> None:
    path = write(tmp_path / "x.tar", [f"{key}.jpg", f"{key}.cls", f"{key}b.jpg", f"{key}b.cls"], kind, mtime)
    asked: list[str] = []
    by_any = tar_scan._any

    def noted(path: str) -> Iterator[tuple[str, int, int]]:
        asked.append(path)
        return by_any(path)

    monkeypatch.setattr(tar_scan, "_any", noted)
    found = scan(str(path), path.stat().st_size)
    assert [(sample.key, sample.members) for sample in found] == by_tarfile(path)
    assert len(found) == 2
    assert bool(asked) is not plain


@pytest.mark.parametrize("kind", ["ustar", "pax", "gnu", "v7"])
def test_tars_of_the_tar_command(tmp_path: Path, kind: str) -> None:
    (tmp_path / "set").mkdir()
    for number in range(5):
        (tmp_path / "set" / f"{number}.jpg").write_bytes(b"j" * number * 700)
        (tmp_path / "set" / f"{number}.cls").write_text(str(number))
    subprocess.run(["tar", f"--format={kind}", "--sort=name", "-cf", "x.tar", "set"], cwd=tmp_path, check=True)
    found = scan(str(tmp_path / "x.tar"), (tmp_path / "x.tar").stat().st_size)
    content = (tmp_path / "x.tar").read_bytes()
    assert [sample.key for sample in found] == [f"set/{number}" for number in range(5)]
    for number, sample in enumerate(found):
        start, size = sample.members["jpg"]
        assert content[start : start + size] == b"j" * number * 700


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("key", ["a", LONG])
def test_a_damaged_header_in_the_middle_is_told(tmp_path: Path, kind: int, key: str) -> None:
    """tarfile alone takes it for the end, and the rest of the shard would be missing without a word."""
    path = write(tmp_path / "x.tar", [f"{key}{number}.jpg" for number in range(6)], kind)
    start = scan(str(path), path.stat().st_size)[3].members["jpg"][0] - 512
    content = bytearray(path.read_bytes())
    content[start + 130] ^= 3
    path.write_bytes(content)
    with pytest.raises(tarfile.ReadError, match=f"byte {start} is no header|bad checksum"):
        scan(str(path), len(content))


def test_a_tar_cut_at_any_block_is_whole_members_or_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", [f"{number}.jpg" for number in range(4)], tarfile.USTAR_FORMAT)
    whole = scan(str(path), path.stat().st_size)
    content = path.read_bytes()
    for length in range(512 + 100, 512 * 10, 100):
        path.write_bytes(content[:length])
        try:
            found: list[Sample] = scan(str(path), length)
        except tarfile.ReadError:
            continue
        assert found == whole[: len(found)]
        assert all(start + size <= length for sample in found for start, size in sample.members.values())
