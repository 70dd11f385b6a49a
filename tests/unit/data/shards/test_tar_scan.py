"""Members of tars: what is read here is what tar extracts, and what can't be read is reported."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlscale.data.shards import tar_scan
from mlscale.data.shards.secure_webdataset import TarWriter
from mlscale.data.shards.system_files import KIND
from mlscale.data.shards.tar_scan import LostSamplesError, TarContents, scan_tar

LONG = "folder/" * 20 + "a"
BLOCK = 512


def scanned(path: Path) -> TarContents:
    return scan_tar(str(path), path.stat().st_size)


def contents(path: Path) -> dict[str, dict[str, bytes]]:
    """The bytes of each member of each sample, by key without './'."""
    whole = path.read_bytes()
    return {
        sample.key.removeprefix("./"): {name: whole[at : at + size] for name, (at, size) in sample.members.items()}
        for sample in scanned(path).samples
    }


def some(count: int, key: str = "") -> dict[str, dict[str, bytes]]:
    """Samples with members of several sizes, one of them a multiple of a block."""
    random = np.random.default_rng(7)
    return {
        f"{key}{number:03}": {"jpg": random.bytes((number * 419) % 2048 + 512 * (number == 3)), "cls": b"%d" % number}
        for number in range(count)
    }


def write(path: Path, samples: dict[str, dict[str, bytes]], kind: int = tarfile.USTAR_FORMAT, mtime: float = 0) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for key, members in samples.items():
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mtime = len(content), mtime
                tar.addfile(info, io.BytesIO(content))
    return path


def spread(folder: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    for key, members in samples.items():
        for extension, content in members.items():
            path = folder / f"{key}.{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("key", ["a", "ä", LONG, "d.x/b"])
@pytest.mark.parametrize("mtime", [0, 1234567.5])  # an extended header, as webdataset's writer has it
def test_what_pythons_writer_makes(tmp_path: Path, kind: int, key: str, mtime: float) -> None:
    samples = some(5, key)
    assert contents(write(tmp_path / "x.tar", samples, kind, mtime)) == samples


def test_what_webdatasets_writer_makes(tmp_path: Path) -> None:
    samples = some(5, "set/")
    with open(tmp_path / "x.tar", "wb") as stream, TarWriter(stream) as writer:
        for key, members in samples.items():
            writer.write({"__key__": key, **members})
    assert contents(tmp_path / "x.tar") == {key: dict(sorted(members.items())) for key, members in samples.items()}


COMMANDS = [
    *(f"tar --format={kind} -cf x.tar set" for kind in ("ustar", "pax", "gnu", "oldgnu", "v7")),
    "tar -cf x.tar set/000.cls set/000.jpg && tar -rf x.tar set/00[1-5].*",
    "tar -cf x.tar set/00[0-2].* && tar -cf y.tar set/00[3-5].* && tar -Af x.tar y.tar",
    "tar -b 1 -cf x.tar set",
    "tar -b 2048 -cf x.tar set",
    "tar -V label -cf x.tar set",
    "tar -g list --format=gnu -cf x.tar set",
    "tar --xattrs --acls --selinux --format=pax -cf x.tar set",
    "find set -type f | cpio --quiet -o -H ustar > x.tar",
    *(f"bsdtar --format={kind} -cf x.tar set" for kind in ("ustar", "pax", "gnutar", "v7")),
    "bsdtar -cf x.tar set",
    "busybox tar -cf x.tar set",
    "7z a -ttar x.tar set",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_commands_make(tmp_path: Path, command: str) -> None:
    for tool in ("cpio", "bsdtar", "busybox", "7z"):
        if f"{tool} " in command and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    samples = some(6, "set/")
    spread(tmp_path, samples)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    assert contents(tmp_path / "x.tar") == samples
    assert set(scanned(tmp_path / "x.tar").skipped) == ({tar_scan.SURPLUS} if "-b 2048" in command else set())


@pytest.mark.parametrize("first", [0x80, 0x00])
def test_sizes_in_base_256(tmp_path: Path, first: int) -> None:
    path = write(tmp_path / "x.tar", {"a": {"jpg": b"j" * 700}})
    whole = bytearray(path.read_bytes())
    header = whole[BLOCK : 2 * BLOCK]  # after that of the folder
    header[124:136] = bytes([first]) + (700).to_bytes(11, "big") if first else b"0000001274 \0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole[BLOCK : 2 * BLOCK] = header
    path.write_bytes(whole)
    assert contents(path) == {"a": {"jpg": b"j" * 700}}


def test_hard_links_are_the_file_that_they_point_to(tmp_path: Path) -> None:
    spread(tmp_path / "set", {"000": {"jpg": b"same" * 300, "cls": b"0"}})
    os.link(tmp_path / "set/000.jpg", tmp_path / "set/001.jpg")
    os.link(tmp_path / "set/000.cls", tmp_path / "set/001.cls")
    for command in ("tar --sort=name -cf x.tar set", "tar --sort=name -cf x.tar -C set .", "bsdtar -cf x.tar set"):
        if shutil.which(command.split()[0]):
            subprocess.run(command.split(), cwd=tmp_path, check=True)
            found = contents(tmp_path / "x.tar")
            assert len(found) == 2, command
            assert all(members == {"jpg": b"same" * 300, "cls": b"0"} for members in found.values())
    subprocess.run(["tar", "-cf", "x.tar", "set/001.jpg", "set/000.jpg"], cwd=tmp_path, check=True)
    subprocess.run(["tar", "--delete", "-f", "x.tar", "set/001.jpg"], cwd=tmp_path, check=True)
    with pytest.raises(
        LostSamplesError, match=r"'set/000\.jpg' is a hard link to 'set/001\.jpg', which is not before it"
    ):
        scanned(tmp_path / "x.tar")


def test_links_devices_and_loose_files_are_counted(tmp_path: Path) -> None:
    spread(tmp_path, some(2))
    (tmp_path / "002.jpg").symlink_to("001.jpg")
    (tmp_path / "003.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "004.jpg")
    (tmp_path / "README").write_text("about the set")
    for name in ("._000.jpg", "Thumbs.db", "desktop.ini", ".DS_Store", "__MACOSX/._000.jpg", "__MACOSX/000.jpg"):
        spread(tmp_path, {name.rpartition(".")[0]: {name.rpartition(".")[2]: b"nothing"}})
    shutil.copytree(tmp_path / "__MACOSX", tmp_path / "deep/__MACOSX")
    subprocess.run(["tar", "--sort=name", "--exclude=x.tar", "-cf", "x.tar", "."], cwd=tmp_path, check=True)
    found = scanned(tmp_path / "x.tar")
    assert [sample.key for sample in found.samples] == ["./000", "./001"]
    numbers = {kind: (skipped.number, skipped.first) for kind, skipped in found.skipped.items()}
    assert numbers == {
        KIND: (8, "./.DS_Store"),
        tar_scan.LINKS: (2, "./002.jpg"),
        tar_scan.DEVICES: (1, "./004.jpg"),
        tar_scan.LOOSE: (1, "./README"),
    }


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    with open(tmp_path / "000.npy", "wb") as stream:
        stream.seek(1 << 20)
        stream.write(b"end")
    for kind in ("gnu", "pax"):
        subprocess.run(["tar", f"--format={kind}", "-Scf", "x.tar", "000.npy"], cwd=tmp_path, check=True)
        with pytest.raises(LostSamplesError, match="is sparse"):
            scanned(tmp_path / "x.tar")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_cut_anywhere_is_refused_unless_all_samples_are_there(tmp_path: Path, kind: int) -> None:
    samples = some(4)
    path = write(tmp_path / "x.tar", samples, kind, mtime=1.5)
    content = path.read_bytes()
    end = max(place[0] + place[1] for sample in scanned(path).samples for place in sample.members.values())
    refused = 0
    for length in [*range(1, len(content), 100), *range(BLOCK, len(content), BLOCK)]:
        path.write_bytes(content[:length])
        try:
            assert contents(path) == samples
        except LostSamplesError:
            refused += 1
            assert length < end + 2 * BLOCK
        else:
            assert length >= end + BLOCK
    assert refused > 20


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("key", ["a", LONG])
@pytest.mark.parametrize("damage", ["zeroed", "flipped", "swapped"])
def test_a_corrupt_header_is_refused(tmp_path: Path, kind: int, key: str, damage: str) -> None:
    """tarfile takes it for the end, and the rest of the shard would be missing without a message."""
    path = write(tmp_path / "x.tar", some(5, key), kind)
    content = path.read_bytes()
    for number, sample in enumerate(scanned(path).samples):
        for start, _ in sample.members.values():
            corrupt = bytearray(content)
            header = slice(start - BLOCK, start)
            if damage == "zeroed":
                corrupt[header] = bytes(BLOCK)
            elif damage == "flipped":
                corrupt[start - BLOCK + 130] ^= 3
            else:
                corrupt[header] = bytes(reversed(content[header]))
            path.write_bytes(corrupt)
            with pytest.raises(LostSamplesError) as caught:
                scanned(path)
            assert caught.value.offset == start - BLOCK
            assert number <= caught.value.whole <= number + 1


def test_archives_that_were_joined_are_read_through(tmp_path: Path) -> None:
    one, other = some(4, "a"), some(3, "b")
    parts = [write(tmp_path / "1.tar", one), write(tmp_path / "2.tar", other, tarfile.GNU_FORMAT), tmp_path / "1.tar"]
    path = tmp_path / "x.tar"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = scanned(path)
    assert [sample.key for sample in found.samples] == [*one, *other, *one]
    assert found.skipped[tar_scan.JOINED].number == 2
    assert contents(path) == {**one, **other}


def test_zeros_and_other_data_after_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", some(3))
    content = path.read_bytes()
    for more, refused in ((bytes(10240), False), (b"signature", True), (bytes(BLOCK) + b"x" * 600, True)):
        path.write_bytes(content + more)
        if refused:
            with pytest.raises(LostSamplesError, match="other data from byte"):
                scanned(path)
        else:
            found = scanned(path)
            assert len(found.samples) == 3
            assert tar_scan.SURPLUS in found.skipped


def hole(content: bytearray, start: int, stop: int) -> None:
    content[start:stop] = bytes(stop - start)


@pytest.mark.parametrize("where", ["to the end", "over members", "from a member to a header"])
def test_holes_that_look_like_an_end_are_refused(tmp_path: Path, where: str) -> None:
    samples = {f"{number:03}": {"jpg": b"j" * 6000, "cls": b"0"} for number in range(20)}
    path = write(tmp_path / "x.tar", samples)
    places = [sample.members["jpg"] for sample in scanned(path).samples]
    content = bytearray(path.read_bytes())
    inside, header = places[4][0] + 1024, places[9][0] - BLOCK
    stop = {"to the end": len(content), "over members": places[9][0] + 700, "from a member to a header": header}[where]
    hole(content, inside, stop)
    path.write_bytes(content)
    with pytest.raises(LostSamplesError, match="zeros"):
        scanned(path)


def test_a_size_that_leads_back_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", some(3))
    content = bytearray(path.read_bytes())
    for field in (b"-0000001000 ", b"\xff" * 11 + b"\0", b"\x80" + b"\xff" * 11):
        header = content[BLOCK : 2 * BLOCK]
        header[124:136], header[148:156] = field, b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(content[:BLOCK] + header + content[2 * BLOCK :])
        with pytest.raises(LostSamplesError):
            scanned(path)


def _cut(content: bytearray, random: np.random.Generator) -> bytes:
    return bytes(content[: int(random.integers(1, len(content)))])


def _hole(content: bytearray, random: np.random.Generator) -> bytes:
    start = int(random.integers(0, len(content)))
    hole(content, start, min(len(content), start + int(random.choice([1, 512, 1024, 4096, 20000]))))
    return bytes(content)


def _swap(content: bytearray, random: np.random.Generator) -> bytes:
    size = int(random.choice([1, 512, 4096]))
    a, b = (int(at) // size * size for at in random.integers(0, max(1, len(content) - size), 2))
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]
    return bytes(content)


def _lost_blocks(content: bytearray, random: np.random.Generator) -> bytes:
    start = int(random.integers(0, len(content))) // 512 * 512
    del content[start : start + 512 * int(random.integers(1, 20))]
    return bytes(content)


@pytest.mark.parametrize("damage", [_cut, _hole, _swap, _lost_blocks])
@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_no_sample_is_lost_without_a_message(
    tmp_path: Path, kind: int, damage: Callable[[bytearray, np.random.Generator], bytes]
) -> None:
    """Whatever happened to a shard: it is refused, or it has all its samples, or what is missing is counted."""
    samples = some(8, LONG if kind == tarfile.PAX_FORMAT else "")
    # What is lost at the very end, up to 10 KB at a member's boundary, makes a shard that never had it.
    samples["last"] = {"jpg": b"j" * 12_000, "cls": b"0"}
    path = write(tmp_path / "x.tar", samples, kind, mtime=1.5)
    content = path.read_bytes()
    random = np.random.default_rng(20261125)
    for _ in range(150):
        path.write_bytes(damage(bytearray(content), random))
        try:
            found = scanned(path)
        except LostSamplesError:
            continue
        # A byte of a long name, which no checksum covers, makes one sample into two that lack a member.
        is_reported = found.skipped or any(len(sample.members) < 2 for sample in found.samples)
        assert {sample.key for sample in found.samples} == set(samples) or is_reported
