"""Digests of members: what changed in a shard after they were recorded is reported by the name of its sample."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mlscale.data import WebDataset
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.shards.index_builder import build_index
from mlscale.data.shards.index_files import get_adjacent_index_path, get_cached_index_path, load_index
from mlscale.data.shards.member_digests import record_digests
from mlscale.data.shards.shard_index import CorruptMemberError, Index
from mlscale.data.shards.shard_paths import find_shards
from mlscale.errors import MLScaleError
from mlscale.predict.inputs import open_inputs
from tests.unit.data.conftest import write_masked, write_shards


def index(folder: Path, keep: str = "auto", *, verify: bool = True) -> Index:
    return build_index(find_shards(folder, where="data.train"), where="data.train", keep=keep, verify=verify)


def record(folder: Path, keep: str = "auto") -> str:
    return str(record_digests(find_shards(folder, where="data.train"), where="data.train", keep=keep))


def flip(path: Path, place: int) -> None:
    """Change the last bit of a byte in the middle of an image: a picture of another grey, no decoder can tell."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("keep", ["auto", "cache", "beside"])
def test_they_are_recorded_where_indexes_are_kept(tmp_path: Path, keep: str) -> None:
    folder = write_shards(tmp_path / "s", 6)
    version = index(folder, keep).compute_data_version()
    assert index(folder, keep).digests is None
    assert record(folder, keep) == "digests of 2 shards recorded"
    assert record(folder, keep) == "digests of 2 shards compared"
    found = index(folder, keep)
    assert found.digests is not None
    assert found.compute_data_version() == version  # or every unfinished run would be reshuffled
    saved = load_index(
        (get_adjacent_index_path if keep == "beside" else get_cached_index_path)(str(folder / "000.tar"))
    )
    assert saved is not None
    assert saved.about["digest"] == "crc32"


def test_what_is_read_is_compared(tmp_path: Path) -> None:
    """In every member, one byte at a time; and in a copy whose index came along with it."""
    folder = write_shards(tmp_path / "s", 4, shards=1)
    record(folder, "beside")
    places = index(folder)
    for sample in range(4):
        for column in range(2):
            copy = tmp_path / f"{sample}-{column}"
            shutil.copytree(folder, copy)
            flip(copy / "000.tar", int(places.offsets[sample, column]) + int(places.sizes[sample, column]) // 2)
            found = index(copy)
            for other in np.ndindex(4, 2):
                if other == (sample, column):
                    with pytest.raises(CorruptMemberError, match=f"sample 000.tar/0000{sample} is corrupt"):
                        found.read_member(*other)
                else:
                    assert found.read_member(*other) == places.read_member(*other)
            index(copy, verify=False).read_member(sample, column)
            with pytest.raises(MLScaleError, match=r"1 member of .* changed after the digests") as caught:
                record(copy, "beside")
            assert caught.value.why == f"0000{sample}.{found.extensions[column]}"


def test_a_corrupt_image_is_a_bad_sample_and_a_corrupt_label_ends_the_run(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "s", 8, shards=1)
    record(folder, "beside")
    places = index(folder)
    data = WebDataset(folder, folder, batch_size=4, image_size=8)
    data.facts()
    flip(folder / "000.tar", int(places.offsets[3, 1]) + 60)
    with pytest.raises(BadSample, match=r"the sample 000\.tar/00003 is corrupt") as caught:
        WebDataset(folder, folder, batch_size=4, image_size=8).facts()
    assert "CRC-32" in caught.value.why
    skipping = WebDataset(folder, folder, batch_size=4, image_size=8, on_bad_sample="skip")
    skipping.setup("fit")
    batches = list(skipping.train_dataloader())
    assert sum(float(batch["weight"].sum()) for batch in batches) == 7
    flip(folder / "000.tar", int(places.offsets[5, 0]))
    with pytest.raises(MLScaleError, match=r"the \.cls member of sample 000\.tar/00005 is corrupt"):
        WebDataset(folder, folder, batch_size=4, image_size=8, on_bad_sample="skip").facts()
    items = open_inputs(str(folder), member=None, key=None, columns=()).read_items(range(8))
    assert [bool(item.error) for item in items] == [number == 3 for number in range(8)]


def test_a_corrupt_mask_is_a_bad_sample(tmp_path: Path) -> None:
    folder = write_masked(tmp_path / "s", 6)
    record(folder, "beside")
    column = index(folder).extensions.index("mask.png")
    flip(folder / "000.tar", int(index(folder).offsets[1, column]) + 50)
    with pytest.raises(BadSample, match=r"the sample 000\.tar/00002 is corrupt"):
        WebDataset(folder, folder, labels="mask", image_key="png", image_size=8).facts()


def test_a_shard_that_was_written_again_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_shards(tmp_path / "s", 6)
    record(folder, "beside")
    write_shards(folder, 8)
    found = index(folder, "beside")
    assert len(found) == 8
    assert found.digests is None
    assert capsys.readouterr().err.count("was written again since mlscale prepare recorded its digests") == 2
    assert record(folder, "beside") == "digests of 2 shards recorded"


def test_an_index_that_comes_after_its_shard_is_used(tmp_path: Path) -> None:
    """A corrupt copy was read before the digests of the original came."""
    folder = write_shards(tmp_path / "s", 4, shards=1)
    record(folder, "beside")
    (tmp_path / "t").mkdir()
    shutil.copyfile(folder / "000.tar", tmp_path / "t/000.tar")
    flip(tmp_path / "t/000.tar", int(index(folder).offsets[2, 1]) + 60)
    assert index(tmp_path / "t").digests is None
    shutil.copytree(folder / ".mlscale-index", tmp_path / "t/.mlscale-index")
    with pytest.raises(CorruptMemberError, match=r"sample 000\.tar/00002 is corrupt"):
        index(tmp_path / "t").read_member(2, 1)


def test_the_data_module_records_all_splits(tmp_path: Path) -> None:
    train, val = write_shards(tmp_path / "t", 8), write_shards(tmp_path / "v", 3, shards=1)
    mixed = WebDataset({"a": train, "b": val}, val, mix={"a": 1, "b": 1}, image_size=8, index="beside")
    recorded = mixed.record_digests()
    assert (recorded.shards + recorded.compared, recorded.samples) == (4, 14)
    assert {path.parent for path in recorded.folders} == {train, val}


def test_a_split_without_digests_where_another_has_some_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        write_shards(tmp_path / split, 6, shards=3)

    def open_data(*, verify: bool = True) -> str:
        WebDataset(tmp_path / "train", tmp_path / "val", verify=verify).setup("fit")
        return capsys.readouterr().err

    WebDataset(tmp_path / "train", tmp_path / "val", index="beside").record_digests()
    shutil.rmtree(tmp_path / "train" / ".mlscale-index")
    assert "digests" not in open_data(verify=False)
    assert "data.train: 3 of 3 shards have no recorded digests, so nothing is compared there" in open_data()
    shutil.rmtree(tmp_path / "val" / ".mlscale-index")
    assert "digests" not in open_data()  # nothing shows that any were recorded
