"""Finding shards: what users write, and what they are told when it is wrong."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from mlscale.data.image_tables.row_files import find_rows
from mlscale.data.shards.index_builder import ForeignShard
from mlscale.data.shards.shard_paths import Shard, find_shards
from mlscale.data.table_parsing.table_files import find_table_files
from mlscale.data.text.documents import find_text_files
from mlscale.errors import Exit, MLScaleError, Problems
from mlscale.events.foreign.log_files import find_log_files
from mlscale.predict.inputs import open_inputs
from tests.unit.data.conftest import write_tar


def names(spec: object) -> list[str]:
    return [shard.name for shard in find_shards(spec, where="data.train")]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_tar(tmp_path / "set" / f"{number:03}.tar", [("a.txt", b"x")])
    return tmp_path / "set"


def test_every_way_to_name_shards(folder: Path) -> None:
    every = ["000.tar", "001.tar", "002.tar"]
    assert names(folder) == every
    assert names(str(folder / "{000..002}.tar")) == every
    assert names(str(folder / "*.tar")) == every
    assert names([folder / "002.tar", str(folder / "{000..001}.tar")]) == ["002.tar", "000.tar", "001.tar"]
    assert names(f"file://{folder}/001.tar") == ["001.tar"]


@pytest.mark.parametrize("name", ["a b.tar", "{000..010}.tar", "x?y.tar", "a&b=c.tar", "#1.tar", "[z].tar", "*.tar"])
def test_a_path_that_exists_is_taken_as_it_stands(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / name, [("a.txt", b"x")])
    assert names(str(tmp_path / name)) == [name]


@pytest.mark.parametrize("name", ["a?b", "[z]", "*", "x [1]"])
def test_what_exists_of_a_pattern_is_a_name_for_every_reader(tmp_path: Path, name: str) -> None:
    for folder in (name, "azb", "z", "x 1"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.csv").write_text(f"a,b\n{len(folder)},2\n")
        (tmp_path / folder / f"{name}.txt").write_text(folder)
        write_tar(tmp_path / folder / "0.tar", [("a.txt", b"x")])
    for spec in (str(tmp_path / name / f"{name}.csv"), str(tmp_path / name / "*.csv")):
        found = [tmp_path / name / f"{name}.csv"]
        assert find_table_files([spec], "data.train") == found
        assert list(find_rows(spec, "data.train", tmp_path)["train"]) == found
        assert find_log_files(Path(spec)) == found
        assert len(open_inputs(spec, member=None, key=None, columns=())) == 1
    texts = find_text_files(str(tmp_path / name / f"{name}.txt"), where="data.train")
    assert [path.read_text() for path in texts] == [name]
    shards = find_shards(str(tmp_path / name / "*.tar"), where="data.train")
    assert [shard.path for shard in shards] == [str(tmp_path / name / "0.tar")]


def test_equal_names_are_reported_apart(tmp_path: Path) -> None:
    paths = [write_tar(tmp_path / part / "0.tar", [("a.txt", b"x")]) for part in ("p", "q")]
    assert names(paths) == ["p/0.tar", "q/0.tar"]


def failure(spec: object, **kwargs: object) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        find_shards(spec, where="data.train", **kwargs)  # type: ignore[arg-type]
    return caught.value


def test_a_path_that_does_not_exist(folder: Path) -> None:
    error = failure(str(folder.parent / "sett" / "000.tar"))
    assert "does not exist" in error.what
    assert error.where == "data.train"
    assert str(folder.parent) in error.why
    assert error.fix == f"data.train={folder}"
    assert error.exit == Exit.USER


def test_no_shard_matches(folder: Path) -> None:
    assert "no shard matches" in failure(str(folder / "train-*.tar")).what


def test_some_shards_of_a_range_are_missing(folder: Path) -> None:
    error = failure(str(folder / "{000..004}.tar"))
    assert error.what.startswith("missing: 2 of the 5 shards")
    assert "003.tar" in error.why


def test_a_folder_without_shards(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = failure(tmp_path / "empty")
    assert "holds no shard" in error.what
    assert "imagefolder" in error.fix


def test_nothing_named() -> None:
    assert failure([]).what == "no shards are named"


@pytest.mark.parametrize("by", ["path", "folder"])
def test_a_compressed_shard(tmp_path: Path, by: str) -> None:
    path = tmp_path / "a b.tar.gz"
    path.write_bytes(gzip.compress(b"x"))
    error = failure(path if by == "path" else tmp_path)
    assert "is compressed" in error.what
    assert error.fix == f"gunzip -k '{path}'"


def test_addresses_are_found_by_who_reads_them(folder: Path) -> None:
    error = failure("https://example.org/000.tar")
    assert error.what == "addresses are not read here"
    assert "a folder" in error.fix

    def find(entry: str, where: str, names: re.Pattern[str]) -> list[Shard]:
        assert where == "data.train"
        assert names.search("x.tar")
        return [ForeignShard(f"{entry}/{name}.tar", "shown") for name in "ab"]

    found = find_shards([folder / "000.tar", "s3://b/x"], where="data.train", find_remote=find)
    assert [shard.name for shard in found] == ["000.tar", "a.tar", "b.tar"]
    # Equal names are distinguished by what is before them, whatever the scheme.
    found = find_shards(["s3://b/x", "s3://b/y"], where="data.train", find_remote=find)
    assert [shard.name for shard in found] == ["x/a.tar", "x/b.tar", "y/a.tar", "y/b.tar"]


def test_a_pipe_is_refused_with_what_to_type(tmp_path: Path) -> None:
    error = failure(f"pipe:echo ran >> {tmp_path}/ran")
    assert "is not run" in error.what
    assert error.fix == f"echo ran >> {tmp_path}/ran > shard.tar; then data.train=shard.tar"
    assert not (tmp_path / "ran").exists()


def test_all_problems_at_once(tmp_path: Path) -> None:
    error = failure([str(tmp_path / "a.tar"), "s3://b/c.tar"])
    assert isinstance(error, Problems)
    assert len(error.problems) == 2
