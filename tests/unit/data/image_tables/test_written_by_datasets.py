"""Data sets of Hugging Face's `datasets`, as that library wrote them, and as its folders may be damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.data import ImageTable, WebDataset
from mlscale.errors import Exit, MLScaleError
from tests.unit.data.conftest import mask, picture, write_masked
from tests.unit.data.image_tables.written_by_datasets import NAMES, STORED, TAGS, TRAIN, VAL, list_tags, write_all


def read_split(data: ImageTable, split: str) -> dict[str, tuple[bytes, Any]]:
    """Return the stored bytes and the labels of each sample, by its name."""
    held, names = data.get_decoded_split(split), data.facts().class_names
    assert names is not None
    labels = [
        names[row] if np.ndim(row) == 0 else {name for name, has in zip(names, row, strict=True) if has}
        for row in held.labels
    ]
    stored = [held.source.read_image(number)[1] for number in range(len(held))]
    return dict(zip(held.list_keys(range(len(held))), zip(stored, labels, strict=True), strict=True))


@pytest.fixture(params=["stored", "now"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of data sets: of a version that is known, and of the one that is installed, if it is."""
    if request.param == "stored":
        return STORED
    pytest.importorskip("datasets")
    write_all(tmp_path / "now")
    return tmp_path / "now"


def open_files(folder: Path, name: str, **settings: Any) -> ImageTable:
    """Open a data set by its files, which needs no library."""
    files = {"disk": ("train/*.arrow", "validation/*.arrow"), "hub": ("data/train-*.parquet", "data/validation-*")}
    train, val = (str(folder / name / pattern) for pattern in files[name])
    return ImageTable(train, val, **{"image_size": None, "batch_size": 4, **settings})


@pytest.mark.parametrize("name", ["disk", "hub"])
def test_classes_and_their_names(written: Path, name: str) -> None:
    data = open_files(written, name)
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        assert read_split(data, split) == {f"{n:03}.png": (picture(n), NAMES[n % 3]) for n in numbers}
    assert data.list_splits() == ["train", "val"]
    assert data.facts().class_names == tuple(sorted(NAMES))


@pytest.mark.parametrize("name", ["disk", "hub"])
def test_lists_of_classes(written: Path, name: str) -> None:
    data = open_files(written, name, labels="several", target="tags")
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        expected = {f"{n:03}.png": (picture(n), {TAGS[tag] for tag in list_tags(n)}) for n in numbers}
        assert read_split(data, split) == expected


def test_masks(written: Path) -> None:
    path = str(written / "masks" / "*.arrow")
    data = ImageTable(path, image_size=None, batch_size=4, labels="mask", val_fraction=0.3)
    seen = 0
    for split in ("train", "val"):
        held = data.get_decoded_split(split)
        assert held.masks is not None
        for number, key in enumerate(held.list_keys(range(len(held)))):
            row = int(key.rpartition(":")[2]) - 1
            source: Any = held.source
            assert source.read_image(number)[1] == picture(row, mode="L")
            assert source.read_label(number)[1] == mask(row)
            seen += 1
    assert seen == len(TRAIN)


def test_the_same_data_in_another_format_is_the_same_version_and_the_same_batches() -> None:
    versions, batches = set(), []
    for name in ("disk", "hub"):
        data = open_files(STORED, name)
        versions.add((data.facts().version, data.facts().label_digest))
        batches.append([(batch["key"], batch["x"].clone()) for batch in data.train_dataloader()])
    assert len(versions) == 1
    for (keys, x), (other_keys, other) in zip(*batches, strict=True):
        assert keys == other_keys
        assert torch.equal(x, other)


def test_images_of_parquet_files_are_unpacked_once(cache: Path) -> None:
    open_files(STORED, "hub").facts()
    before = {path: path.stat().st_mtime_ns for path in (cache / "image_tables").iterdir()}
    assert len(before) == 2
    open_files(STORED, "hub").facts()
    assert {path: path.stat().st_mtime_ns for path in (cache / "image_tables").iterdir()} == before


def test_masks_are_those_of_shards(tmp_path: Path) -> None:
    """The same pictures and masks in tars: the same values reach the model."""
    write_masked(tmp_path / "t", 12)
    tars = WebDataset(tmp_path / "t", tmp_path / "t", image_key="png", labels="mask", image_size=6, batch_size=4)
    path = str(STORED / "masks" / "*.arrow")
    table = ImageTable(path, image_size=6, labels="mask", batch_size=4, val_fraction=0.3)
    one, other = table.get_decoded_split("train"), tars.get_decoded_split("train")
    assert one.masks is not None
    assert other.masks is not None
    rows = {key.rpartition("/")[2]: number for number, key in enumerate(other.list_keys(range(len(other))))}
    for number, key in enumerate(one.list_keys(range(len(one)))):
        row = rows[f"{int(key.rpartition(':')[2]) - 1:05}"]
        assert np.array_equal(one.get_sample(number), other.get_sample(row))
        assert np.array_equal(one.masks.get_mask(number), other.masks.get_mask(row))


def fail(path: object, **settings: Any) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        ImageTable(path, image_size=None, **settings).facts()  # type: ignore[arg-type]
    return caught.value


def copy_file(tmp_path: Path) -> Path:
    return Path(shutil.copy(STORED / "disk" / "train" / "data-00000-of-00002.arrow", tmp_path))


@pytest.mark.parametrize("size", [100, 2000, 3112])
def test_a_file_that_is_cut_off(tmp_path: Path, size: int) -> None:
    path = copy_file(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    error = fail(path)
    assert "data-00000-of-00002.arrow cannot be read as Arrow" in error.what
    assert "cut off" in error.why


def test_a_file_with_wrong_offsets_is_refused(tmp_path: Path) -> None:
    path = copy_file(tmp_path)
    whole = path.read_bytes()
    # The offsets of the first image's bytes: 0 and its size, as int32.
    start = whole.index((0).to_bytes(4, "little") + len(picture(0)).to_bytes(4, "little"))
    path.write_bytes(whole[: start + 4] + (1 << 30).to_bytes(4, "little") + whole[start + 8 :])
    assert "cannot be read as Arrow" in fail(path).what


class TestFolders:
    """A folder of Parquet files is a split; any other is read by the library."""

    def test_parquet_files(self) -> None:
        data = ImageTable(STORED / "hub" / "data", image_size=None, batch_size=4, val_fraction=0.3)
        assert data.count_samples("train") + data.count_samples("val") == 18

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mlscale.data.table_parsing.table_files.find_spec", lambda name: name != "datasets" or None)
        error = fail(STORED / "disk")
        assert (error.exit, error.fix) == (Exit.ENVIRONMENT, "pip install 'mlscale[datasets]'")

    @pytest.mark.parametrize("name", ["disk", "hub"])
    def test_splits(self, cache: Path, name: str) -> None:
        pytest.importorskip("datasets")
        folder, files = ImageTable(STORED / name, image_size=None, batch_size=4), open_files(STORED, name)
        assert folder.list_splits() == ["train", "val"]
        assert folder.facts() == files.facts()
        for split in folder.list_splits():
            assert read_split(folder, split) == read_split(files, split)

    def test_one_split(self) -> None:
        pytest.importorskip("datasets")
        data = ImageTable(STORED / "disk" / "train", STORED / "disk" / "validation", image_size=None)
        assert (data.facts().train_samples, data.facts().val_samples) == (12, 6)
        error = fail(STORED / "disk" / "train", val=STORED / "disk")
        assert error.what == "this folder holds several splits: train, val"
        assert error.where == "data.val"

    def test_a_file_that_is_missing(self, tmp_path: Path) -> None:
        pytest.importorskip("datasets")
        shutil.copytree(STORED / "disk", tmp_path / "disk")
        (tmp_path / "disk" / "train" / "data-00001-of-00002.arrow").unlink()
        error = fail(tmp_path / "disk")
        assert "datasets can't read the folder" in error.what
        assert "data-00001-of-00002.arrow" in error.why


def test_a_class_of_minus_one_is_none(tmp_path: Path) -> None:
    """What the library writes for samples without a class, such as those of a test set."""
    import pyarrow as pa

    path = tmp_path / "data.arrow"
    info = {"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}}}
    table = pa.table({"image": [picture(n) for n in range(9)], "label": [0, 1, 2, -1, 0, 1, 2, 7, 0]})
    table = table.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})
    with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    error = fail(path, val_fraction=0.3)
    assert "2 of" in error.what or "1 of" in error.what
    assert "its number is -1, which stands for none" in error.why or "its number is 7" in error.why
    data = ImageTable(path, val=path, image_size=None, batch_size=9, on_bad_sample="skip", last="pad")
    (batch,) = data.train_dataloader()
    assert batch["weight"].tolist().count(0) == 2
