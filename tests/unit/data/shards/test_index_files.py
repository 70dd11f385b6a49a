"""Index files: where they lie, whom they serve, and that a bad one does not switch its digests off."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.data import WebDataset
from mlscale.data.shards import index_builder
from mlscale.data.shards.index_builder import build_index
from mlscale.data.shards.index_files import (
    UnreadableIndexError,
    get_adjacent_index_path,
    get_cached_index_path,
    load_index,
    parse_index,
)
from mlscale.data.shards.member_digests import record_digests
from mlscale.data.shards.shard_index import CorruptMemberError, Index
from mlscale.data.shards.shard_paths import find_shards
from mlscale.data.shards.small_members import read_small_members
from mlscale.data.shards.tar_scan import TarContents, scan_tar
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import write_shards, write_tar

EXAMPLES = Path(__file__).parents[3] / "contract" / "examples"


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of shards that were read through."""
    paths: list[str] = []

    def noted(path: str, length: int) -> TarContents:
        paths.append(path)
        return scan_tar(path, length)

    monkeypatch.setattr("mlscale.data.shards.index_builder.scan_tar", noted)
    # As long after a shard was written, its times are sure to show a later change.
    monkeypatch.setattr("mlscale.data.shards.index_files._CLOCK_TOLERANCE_NS", -1)
    return paths


def build(folder: Path, keep: str = "auto") -> Index:
    return build_index(find_shards(folder, where="data.train"), where="data.train", keep=keep)


def same(a: Index, b: Index) -> bool:
    tables = np.array_equal(a.offsets, b.offsets) and np.array_equal(a.sizes, b.sizes)
    return tables and np.array_equal(a.shard, b.shard) and (a.keys, a.extensions) == (b.keys, b.extensions)


def test_an_index_beside_the_shards_serves_these_files(tmp_path: Path, cache: Path, scanned: list[str]) -> None:
    folder = write_shards(tmp_path / "s", 6)
    for shard in folder.glob("*.tar"):
        shard.chmod(0o644)  # whoever may read a shard may read its index
    first = build(folder, "beside")
    assert sorted(path.name for path in (folder / ".mlscale-index").iterdir()) == ["000.tar.npz", "001.tar.npz"]
    assert not cache.exists()
    assert oct((folder / ".mlscale-index" / "000.tar.npz").stat().st_mode)[-3:] == "644"
    for keep in ("auto", "beside"):
        assert same(first, build(folder, keep))
    assert len(scanned) == 2
    shutil.copytree(folder, tmp_path / "t", copy_function=shutil.copyfile)  # other times: its headers are read again
    for _ in range(2):
        assert build(tmp_path / "t").compute_data_version() == first.compute_data_version()
    assert len(scanned) == 4


def test_nothing_is_written_beside_the_shards_unasked(tmp_path: Path, cache: Path) -> None:
    folder = write_shards(tmp_path / "s", 6)
    build(folder)
    assert sorted(os.listdir(folder)) == ["000.tar", "001.tar"]
    assert len(os.listdir(cache / "index")) == 2
    build(folder, "beside")  # takes over what the cache has
    assert (folder / ".mlscale-index" / "001.tar.npz").exists()


def test_where_the_folder_cannot_be_written_to_the_cache_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scanned: list[str]
) -> None:
    folder = write_shards(tmp_path / "s", 6)
    (folder / ".mlscale-index").write_text("in the way")
    assert same(build(folder, "beside"), build(folder, "beside"))
    assert len(scanned) == 2
    assert capsys.readouterr().err.count(f"kept in the cache: {folder} cannot be written to") == 2


@pytest.mark.parametrize("keep", ["cache", "beside"])
def test_a_changed_shard_is_read_again(tmp_path: Path, keep: str, scanned: list[str]) -> None:
    folder = write_shards(tmp_path / "s", 6)
    build(folder, keep)
    write_shards(folder, 6, names={0: "a", 1: "b", 2: "c"})  # same sizes, same names, another time
    (folder / "001.tar").write_bytes((folder / "001.tar").read_bytes() + bytes(10240))
    changed = build(folder, keep)
    assert len(scanned) == 4
    assert changed.read_member(0, 0) == b"a"
    build(folder, keep)
    assert len(scanned) == 4


def _spoil(path: Path, damage: str, shard: Path) -> None:
    """Make an index file unreadable, with checksums of the archive that are right where only its content is wrong."""
    content = path.read_bytes()
    saved = dict(np.load(path))
    place = content.index(saved["offsets"].tobytes()) + 3
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    about = json.loads(saved["about"].tobytes())
    if damage == "later":
        about["format"] = "mlscale/index/3"
    if damage == "other":
        about["samples"] = 5
    if damage == "beyond":
        saved["offsets"][-1, -1] = shard.stat().st_size
    if damage == "name" and "digests" in saved:
        saved["digestt"] = saved.pop("digests")
    if damage == "none":
        about["digest"] = None
    saved["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    bad = {"empty": b"", "half": content[: len(content) // 2], "text": b"no index" * 100, "flipped": flipped}
    if damage in bad:
        path.write_bytes(bad[damage])
    else:
        np.savez(path, **saved)


@pytest.mark.parametrize("damage", ["half", "flipped", "later", "other", "beyond"])
def test_an_unreadable_index_without_digests_is_made_anew_and_reported(
    tmp_path: Path, damage: str, scanned: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "s", 6, shards=1)
    first = build(folder, "beside")
    path = get_adjacent_index_path(str(folder / "000.tar"))
    _spoil(path, damage, folder / "000.tar")
    with pytest.raises(UnreadableIndexError):
        load_index(path)
    assert same(build(folder, "beside"), first)
    assert len(scanned) == 2
    assert f"index     {path} can't be read, and is not used" in capsys.readouterr().err
    assert load_index(path) is not None


@pytest.mark.parametrize("damage", ["empty", "half", "text", "flipped", "later", "other", "beyond", "name"])
@pytest.mark.parametrize("keep", ["cache", "beside"])
def test_digests_that_cannot_be_read_are_an_error_unless_nothing_is_to_be_compared(
    tmp_path: Path, cache: Path, damage: str, keep: str
) -> None:
    folder = write_shards(tmp_path / "s", 6, shards=1)
    shards = find_shards(folder, where="data.train")
    record_digests(shards, where="data.train", keep=keep)
    path = get_adjacent_index_path(shards[0].path) if keep == "beside" else get_cached_index_path(shards[0].path)
    _spoil(path, damage, folder / "000.tar")
    for again in range(2):  # a refusal writes nothing that would let the next one pass
        with pytest.raises(MLScaleError, match=f"the index '{path}' can't be read") as caught:
            build(folder, "auto" if again else keep)
        assert "data.verify=false, which compares nothing" in caught.value.fix
    with pytest.raises(MLScaleError, match="can't be read"):
        record_digests(shards, where="data.train", keep=keep)
    assert len(build_index(shards, where="data.train", keep=keep, verify=False)) == 6


def test_every_flipped_bit_of_an_index_is_noticed_or_changes_nothing(tmp_path: Path, cache: Path) -> None:
    folder = write_shards(tmp_path / "s", 6, shards=1)
    shards = find_shards(folder, where="data.train")
    record_digests(shards, where="data.train", keep="beside")
    path = get_adjacent_index_path(shards[0].path)
    content, whole = path.read_bytes(), load_index(path)
    assert whole is not None
    missed: list[bool] = []
    for place in range(0, len(content), 7):
        flipped = content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]
        try:
            read = parse_index(flipped, "flipped")
        except UnreadableIndexError as error:
            missed.append(not error.had_digests)
            continue
        assert read.about == whole.about
        assert str(read.index.digests) == str(whole.index.digests)
        assert read.index.has_same_members(whole.index)
    assert missed
    assert not any(missed)


def test_digests_in_the_other_place_are_used_and_the_unreadable_file_is_a_line(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "s", 6, shards=1)
    shards = find_shards(folder, where="data.train")
    for keep in ("cache", "beside"):
        record_digests(shards, where="data.train", keep=keep)
    path = get_adjacent_index_path(shards[0].path)
    shutil.copy(path, get_cached_index_path(shards[0].path))
    _spoil(path, "flipped", folder / "000.tar")
    assert build(folder).digests is not None
    assert f"{path} can't be read, and is not used" in capsys.readouterr().err


def test_shards_without_digests_among_others_with_such_are_a_line(
    tmp_path: Path, cache: Path, scanned: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "set" / "train", 6)
    shards = find_shards(folder, where="data.train")
    build(folder)
    assert "no recorded digests" not in capsys.readouterr().err
    record_digests(shards[:1], where="data.train", keep="beside")
    build(folder)
    assert "1 of 2 shards have no recorded digests" in capsys.readouterr().err
    shutil.rmtree(folder / ".mlscale-index")
    (tmp_path / "set" / "dataset.json").write_text("{}")  # of `mlscale prepare to=`, whose shards had them
    build(folder)
    assert "2 of 2 shards have no recorded digests" in capsys.readouterr().err


def test_many_may_build_at_once(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "s", 12)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: build(folder, "beside"), range(24)))
    assert all(same(index, found[0]) for index in found)
    assert sorted(os.listdir(folder / ".mlscale-index")) == ["000.tar.npz", "001.tar.npz"]


@pytest.mark.parametrize("number", [1, 2])
def test_an_index_of_an_earlier_version_still_loads(tmp_path: Path, scanned: list[str], number: int) -> None:
    example = EXAMPLES / f"index-{number}"
    (tmp_path / "s" / ".mlscale-index").mkdir(parents=True)
    shutil.copyfile(example / "000.tar", tmp_path / "s" / "000.tar")
    shutil.copyfile(example / "000.tar.npz", get_adjacent_index_path(str(tmp_path / "s" / "000.tar")))
    found = build(tmp_path / "s")
    assert len(scanned) == 1
    assert (found.keys, found.extensions) == (("cat/0", "dog/1"), ("cls", "txt"))
    assert [found.read_member(0, 1), found.read_member(1, 0)] == [b"a cat", b"1"]
    assert (found.digests is not None) is (number == 2)
    about = json.loads(np.load(example / "000.tar.npz")["about"].tobytes())
    assert about == json.loads(example.with_suffix(".json").read_text())


def test_the_cache_knows_a_shard_by_its_real_path(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "s", 6)
    (tmp_path / "link").symlink_to(folder)
    assert get_cached_index_path(str(tmp_path / "link" / "000.tar")) == get_cached_index_path(str(folder / "000.tar"))
    assert get_cached_index_path(str(folder / "000.tar")) != get_cached_index_path(str(folder / "001.tar"))


@pytest.mark.parametrize("words", [{"index": "besides"}, {"incomplete": "leave"}])
def test_a_word_that_is_none(tmp_path: Path, words: dict[str, Any]) -> None:
    ((name, word),) = words.items()
    with pytest.raises(MLScaleError, match=rf"data\.{name} is '{word}'"):
        WebDataset(tmp_path, tmp_path, **words)


def without_times(path: Path, write: Callable[[], object]) -> None:
    """Change a file, and set the time of its last change back, as `cp -p` and `rsync -t` do."""
    before = path.stat()
    write()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("keep", ["cache", "beside"])
@pytest.mark.parametrize("aside", [True, False])
def test_a_shard_that_was_written_again_with_the_times_it_had(tmp_path: Path, keep: str, aside: bool) -> None:
    """Its size and its time say that it is the one that was indexed."""
    folder = write_shards(tmp_path / "s", 6, shards=1)
    shard = folder / "000.tar"
    build(folder, keep)
    renamed = bytearray(shard.read_bytes())
    for start in range(0, len(renamed), 512):
        if renamed[start : start + 6] == b"00003.":
            renamed[start : start + 5] = b"0000x"
            header = renamed[start : start + 512]
            header[148:156] = b" " * 8
            renamed[start + 148 : start + 156] = b"%06o\0 " % sum(header)

    def write() -> None:
        (tmp_path / "new").write_bytes(renamed)
        if aside:
            os.replace(tmp_path / "new", shard)
        else:
            shard.write_bytes(renamed)

    without_times(shard, write)
    assert build(folder, keep).keys == ("00000", "00001", "00002", "0000x", "00004", "00005")


def test_an_index_of_a_part_of_a_shard_is_not_used(tmp_path: Path, scanned: list[str]) -> None:
    """Format 1 was also written of shards that were read up to a zeroed header; these were repaired since."""
    folder = write_shards(tmp_path / "s", 40, shards=1, size=(64, 64))
    shard = str(folder / "000.tar")
    whole = build(folder, "beside")
    path = get_adjacent_index_path(shard)
    saved = dict(np.load(path))
    about = json.loads(saved["about"].tobytes())
    about |= {"samples": 6, "format": "mlscale/index/1"}
    for key in ("inode", "ctime_ns", "skipped", "digest", "end", "arrays", "sha256"):
        about.pop(key, None)
    arrays = {name: saved[name][:6] for name in ("offsets", "sizes")}
    keys = np.frombuffer("\0".join(whole.keys[:6]).encode(), np.uint8)
    np.savez(path, about=np.frombuffer(json.dumps(about).encode(), np.uint8), keys=keys, **arrays)
    saved_index = load_index(path)
    assert saved_index is not None
    assert not saved_index.is_of_same_file(os.stat(shard))
    assert same(build(folder, "beside"), whole)


def test_what_was_skipped_is_reported_from_the_index_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scanned: list[str]
) -> None:
    write_tar(tmp_path / "s/0.tar", [("d/a.jpg", b"j"), ("d/a.cls", b"0"), ("d/._a.jpg", b"x"), ("d/._a.cls", b"x")])
    line = "data      data.train: skipped files of macOS, Windows or a storage system: 2, the first: 0.tar/d/._a.jpg\n"
    for _ in range(2):
        monkeypatch.setattr("mlscale.data.shards.system_files._reported", set())
        assert build(tmp_path / "s").keys == ("d/a",)
        build(tmp_path / "s")
        assert capsys.readouterr().err == line
    assert len(scanned) == 1
    monkeypatch.setattr("mlscale.data.shards.system_files._reported", set())
    monkeypatch.setenv("RANK", "1")
    build(tmp_path / "s")
    assert capsys.readouterr().err == ""


def test_labels_come_from_the_index_of_an_unchanged_file_alone(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard whose labels were edited has the labels that it has."""
    # As long after the shard was written, its times are sure to show a later change.
    monkeypatch.setattr("mlscale.data.shards.index_files._CLOCK_TOLERANCE_NS", -1)
    members = [(f"{i}.{kind}", content) for i in range(400) for kind, content in (("cls", b"1"), ("jpg", b"x" * 900))]
    path = write_tar(tmp_path / "s" / "0.tar", members)
    reads: list[int] = []
    original = read_small_members

    def count_and_read(handle: int, offsets: Any, sizes: Any) -> bytes:
        reads.append(handle)
        return original(handle, offsets, sizes)

    monkeypatch.setattr(index_builder, "read_small_members", count_and_read)
    first = build(path)
    assert (first.read_column(0), len(reads)) == ([b"1"] * 400, 1)
    assert (build(path).read_column(0), len(reads)) == ([b"1"] * 400, 1)
    content = bytearray(path.read_bytes())
    # The label of a sample in the middle, away from the sixteen blocks.
    at = int(first.offsets[201, 0])
    content[at : at + 1] = b"2"
    path.write_bytes(content)
    edited = build(path)
    assert (edited.contents, len(reads)) == (first.contents, 2)
    assert edited.read_column(0) == [b"1"] * 201 + [b"2"] + [b"1"] * 198
    # An index of before small members were kept is read, too, and gains them.
    (saved,) = (cache / "index").iterdir()
    arrays = dict(np.load(saved))
    del arrays["small"]
    np.savez(saved, **arrays)
    assert (build(path).read_column(0), len(reads)) == (edited.read_column(0), 3)
    assert "small" in np.load(saved)


def test_a_label_in_the_index_that_differs_from_its_digest_is_named(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlscale.data.shards.index_files._CLOCK_TOLERANCE_NS", -1)
    members = [(f"{i}.{kind}", content) for i in range(6) for kind, content in (("cls", b"1"), ("jpg", b"x" * 900))]
    path = write_tar(tmp_path / "s" / "0.tar", members)
    record_digests(find_shards(str(path), where="data.train"), where="data.train", keep="auto")
    assert build(path).read_column(0) == [b"1"] * 6
    (saved,) = (cache / "index").iterdir()
    arrays = dict(np.load(saved))
    about = json.loads(arrays["about"].tobytes())
    del about["sha256"], about["arrays"]  # as earlier versions wrote it
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    arrays["small"][3] ^= 3
    np.savez(saved, **arrays)
    with pytest.raises(CorruptMemberError, match=r"member of sample 0\.tar/3 is corrupt"):
        build(path).read_column(0)
