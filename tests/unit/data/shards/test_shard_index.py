"""The index: where members lie, what version they make, and what is wrong with a shard."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mlscale.data.shards.index_builder import build_index
from mlscale.data.shards.shard_index import Index
from mlscale.data.shards.shard_paths import Shard, find_shards
from mlscale.data.shards.system_files import SkippedFiles
from mlscale.data.shards.tar_scan import AGAIN, scan_tar
from mlscale.errors import MLScaleError, Problems
from tests.unit.data.conftest import picture, write_shards, write_tar


def index(spec: object) -> Index:
    return build_index(find_shards(spec, where="data.train"), where="data.train")  # type: ignore[arg-type]


def test_members_are_found_and_grouped_as_webdataset_does(tmp_path: Path) -> None:
    members = [
        ("__meta__/set.json", b"skipped"),
        ("d/a.JPG", b"image"),
        ("d/a.seg.png", b"mask"),
        ("d/a.cls", b"1"),
        ("no_extension", b"skipped"),
        ("d/b.cls", b"2"),
    ]
    found = index(write_tar(tmp_path / "0.tar", members))
    assert found.keys == ("d/a", "d/b")
    assert found.extensions == ("cls", "jpg", "seg.png")
    assert found.get_sample_name(1) == "0.tar/d/b"
    assert [found.read_member(0, column) for column in range(3)] == [b"1", b"image", b"mask"]
    assert (found.offsets[1] < 0).tolist() == [False, True, True]
    assert found.read_column(0) == [b"1", b"2"]


def test_members_of_a_sample_need_not_be_neighbours(tmp_path: Path) -> None:
    """`tar cf x.tar .` writes files in the order of the folder, which is none."""
    members = [
        ("./b.cls", b"1"),
        ("./a.jpg", b"A"),
        ("./c.cls", b"2"),
        ("./b.jpg", b"B"),
        ("./a.cls", b"0"),
        ("./c.jpg", b"C"),
    ]
    found = index(write_tar(tmp_path / "0.tar", members))
    assert found.keys == ("./b", "./a", "./c")
    assert found.read_column(0) == [b"1", b"0", b"2"]
    assert found.read_column(1) == [b"B", b"A", b"C"]


def test_keys_that_come_again_are_samples_of_their_own_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = [("a.jpg", b"A"), ("a.cls", b"0"), ("b.jpg", b"B"), ("b.cls", b"1")]
    other = [("a.jpg", b"C"), ("a.cls", b"2"), ("b.jpg", b"D"), ("b.cls", b"3")]
    path = write_tar(tmp_path / "0.tar", [*one, *other])
    for _ in "scanned", "cached":
        monkeypatch.setattr("mlscale.data.shards.system_files._reported", set())
        found = index(path)
        assert found.keys == ("a", "b", "a", "b")
        assert found.read_column(0) == [b"0", b"1", b"2", b"3"]
        assert found.read_column(1) == [b"A", b"B", b"C", b"D"]
        assert f"{AGAIN}: 2, the first: 0.tar/a\n" in capsys.readouterr().err
    os.utime(path, (1, 1))  # while it is read
    assert found.read_member(2, 1) == b"C"


@pytest.mark.parametrize(
    ("names", "number"),
    [
        ("a.jpg a.cls b.jpg b.cls a.cls a.jpg", 1),  # one that was appended
        ("a.jpg b.jpg a.cls b.cls", 0),  # in the order of a folder
        ("a.jpg a.cls b.jpg b.cls a.txt", 0),
        ("a.jpg b.cls b.jpg a.JPG a.cls b.jpg b.cls a.jpg", 3),
        ("d/a.jpg d/a.cls e/a.jpg e/a.cls", 0),
    ],
)
def test_keys_that_come_again_are_counted(tmp_path: Path, names: str, number: int) -> None:
    path = write_tar(tmp_path / "x.tar", [(name, b"0") for name in names.split()])
    found = scan_tar(str(path), path.stat().st_size).skipped
    assert found == ({AGAIN: SkippedFiles(number, "a")} if number else {})


@pytest.mark.parametrize("names", ["a.jpg a.cls a.jpg a.cls", "a.cls a.cls", "b.jpg a.jpg a.cls a.JPG", "a.x.y a.x.y"])
def test_two_samples_of_one_key_in_a_row_are_an_error(tmp_path: Path, names: str) -> None:
    with pytest.raises(MLScaleError, match=r"x\.tar' has two samples of one key in a row") as caught:
        index(write_tar(tmp_path / "x.tar", [(name, b"0") for name in names.split()]))
    assert "is there twice: which members belong together" in caught.value.why


def test_shards_with_different_members_are_joined(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", b"j"), ("a.cls", b"0")])
    write_tar(tmp_path / "1.tar", [("b.cls", b"1"), ("b.png", b"p")])
    found = index(tmp_path)
    assert found.extensions == ("cls", "jpg", "png")
    assert found.read_column(0) == [b"0", b"1"]
    assert found.read_member(1, 2) == b"p"


def test_the_second_time_it_comes_from_the_cache(tmp_path: Path, cache: Path) -> None:
    folder = write_shards(tmp_path / "s", 6)
    first = index(folder)
    (saved, _) = sorted((cache / "index").iterdir())
    again = index(folder)
    assert again.keys == first.keys
    assert np.array_equal(again.offsets, first.offsets)
    write_tar(folder / "000.tar", [("new.png", picture(0)), ("new.cls", b"0")])
    assert index(folder).keys[0] == "new"
    assert saved.exists()


def test_without_a_cache_it_works_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLSCALE_CACHE", str(tmp_path / "file"))
    assert len(index(write_shards(tmp_path / "s", 6))) == 6


def test_the_version_follows_the_content_alone(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "s", 12)
    version = index(folder).compute_data_version()
    shutil.copytree(folder, tmp_path / "elsewhere" / "t")
    os.utime(tmp_path / "elsewhere" / "t" / "000.tar", (1, 1))
    assert index(tmp_path / "elsewhere" / "t").compute_data_version() == version
    content = bytearray((folder / "001.tar").read_bytes())
    content[600] ^= 1
    (folder / "001.tar").write_bytes(content)
    assert index(folder).compute_data_version() != version


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "is empty"), (b"\xff\xd8 a photograph, not a tar" * 50, "is not a tar file"), (b"text" * 999, "not a tar")],
)
def test_what_is_no_tar(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(MLScaleError, match=what) as caught:
        index(path)
    assert str(path) in caught.value.fix


def test_a_truncated_shard(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a.png", picture(0, size=(64, 64))), ("a.cls", b"0")])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(MLScaleError, match="is cut off"):
        index(path)


def test_a_shard_without_samples_and_one_with_a_name_twice(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("README", b"")])
    write_tar(tmp_path / "1.tar", [("a.cls", b"0"), ("a.cls", b"1")])
    with pytest.raises(Problems) as caught:
        index(tmp_path)
    assert [p.what.split("tar' ")[1] for p in caught.value.problems] == [
        "holds no sample",
        "has two samples of one key in a row",
    ]
    assert "is there twice" in caught.value.problems[1].why


def test_a_shard_that_shrinks_while_it_is_used(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a.cls", b"0"), ("b.cls", b"1")])
    found = index(path)
    os.truncate(path, 1000)
    with pytest.raises(MLScaleError, match="was changed or replaced") as caught:
        found.read_member(1, 0)
    assert "2" in caught.value.why
    path.unlink()
    with pytest.raises(MLScaleError, match="cannot be opened"):
        found.read_member(0, 0)


def test_a_shard_that_is_replaced_while_it_is_used(tmp_path: Path) -> None:
    """By one of the same size, whose samples are at the same places: the labels that were read are those of another."""
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"A"), ("a.cls", b"0"), ("b.jpg", b"B"), ("b.cls", b"1")])
    for other in ("replaced", "written over"):
        found = index(path)
        was = found.read_member(1, 1)
        new = write_tar(tmp_path / "new", [("a.jpg", was), ("a.cls", b"1"), ("b.jpg", b"x"), ("b.cls", b"0")])
        if other == "replaced":
            os.replace(new, path)
        else:
            path.write_bytes(new.read_bytes().replace(b"x", b"y"))
        for read in (lambda: found.read_member(1, 1), lambda: found.read_column(0)):  # noqa: B023
            with pytest.raises(MLScaleError, match="was changed or replaced after it was indexed"):
                read()


def test_a_shard_that_is_touched_or_replaced_by_a_copy_is_read_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"A"), ("a.cls", b"0")])
    found = index(path)
    os.utime(path, (1, 1))
    assert found.read_member(0, 1) == b"A"
    shutil.copyfile(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)
    assert [found.read_member(0, 1), found.read_member(0, 0)] == [b"A", b"0"]
    assert capsys.readouterr().err.count("was touched or replaced while read") == 1


@pytest.mark.parametrize("damage", ["in the padding", "at a member", "in a member", "zeroed", "garbled", "sparse"])
def test_the_command_that_the_message_names_repairs_the_shard(tmp_path: Path, damage: str) -> None:
    samples = [(f"{i}.{kind}", bytes([65 + i]) * 900) for i in range(4) for kind in ("jpg", "cls")]
    path = write_tar(tmp_path / "a 'b'.tar", samples)
    at = index(path).offsets[2].min()
    content = bytearray(path.read_bytes())
    length = {"in the padding": at + 950, "at a member": at - 512, "in a member": at + 100}.get(damage, len(content))
    if damage == "zeroed":
        content[at - 512 : at] = bytes(512)
    elif damage == "garbled":
        content[at - 400] ^= 1
    path.write_bytes(content[:length])
    if damage == "sparse":
        subprocess.run(["tar", "-xf", path, "--one-top-level=set"], cwd=tmp_path, check=True)
        with open(tmp_path / "set/9.jpg", "wb") as stream:
            os.truncate(stream.fileno(), 100_000)
        subprocess.run(["tar", "--format=gnu", "--sort=name", "-Scf", path, "-C", "set", "."], cwd=tmp_path, check=True)
    with pytest.raises(MLScaleError, match=r"is cut off|is corrupt") as caught:
        index(path)
    before = {"in the padding": 3, "sparse": 4}.get(damage, 2)
    assert f"{before} samples begin before it" in caught.value.why
    command = caught.value.fix.partition("; or ")[2].partition("   ")[0]
    subprocess.run(command, shell=True, check=False, capture_output=True)
    if "repaired" in command:
        os.replace(f"{path}.repaired", path)  # what is left of the shard is not written over
    found = index(path)
    whole = {found.keys[sample].removeprefix("./") for sample in range(len(found))}
    expected = {"0", "1", "2"} if damage == "in the padding" else {"0", "1"} if length < len(content) else set("0123")
    assert whole == expected | ({"9"} if damage == "sparse" else set())
    for sample, key in enumerate(found.keys):
        for column in np.flatnonzero(found.offsets[sample] >= 0).tolist():
            size = 900 if "9" not in key else 100_000
            assert len(found.read_member(sample, column)) == size


def test_the_cache_is_by_file_and_not_by_name(tmp_path: Path) -> None:
    for part in "ab":
        write_tar(tmp_path / part / "x.tar", [(f"{part}.cls", b"0")])
    both = build_index([Shard("x", str(tmp_path / part / "x.tar")) for part in "ab"], where="data.train")
    assert both.keys == ("a", "b")
