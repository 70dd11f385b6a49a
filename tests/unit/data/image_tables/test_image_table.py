"""Tables of paths: every format, label and way to hold out, and what is reported where rows are wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlscale.data import ImageFolder, ImageTable
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import mask, picture

CLASSES = ("ant", "cat", "dog")


def write_photos(folder: Path, count: int, kind: str = "png") -> list[dict[str, Any]]:
    """Write images into two folders; return a row for each."""
    rows = []
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
        name = path.relative_to(folder).as_posix()
        day = f"2026-{1 + number // 28:02}-{1 + number % 28:02}"
        rows.append({"file": name, "species": CLASSES[number % 3], "patient": f"p{number // 4}", "day": day})
    return rows


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the path's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.Table.from_pylist(rows)
        if path.suffix == ".parquet":
            parquet.write_table(table, path, row_group_size=7)
        else:
            with path.open("wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
                writer.write_table(table)
    return path


def open_table(path: Path, **settings: Any) -> ImageTable:
    return ImageTable(
        path, **{"image_size": None, "batch_size": 4, "image_column": "file", "target": "species", **settings}
    )


def list_keys(data: ImageTable, split: str) -> list[str]:
    return data.list_keys(split, np.arange(data.count_samples(split)))


def fail(path: Path, **settings: Any) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        open_table(path, **settings).facts()
    # Where validation rows are the same as those of training, both have the problem.
    problems: list[MLScaleError] = getattr(caught.value, "problems", [caught.value])
    return problems[0]


def test_a_path_that_does_not_exist_may_have_been_a_folder(tmp_path: Path) -> None:
    assert (
        fail(tmp_path / "absent").fix == "data.train=<a .csv, .parquet or .jsonl file, or a glob of such, or a folder>"
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "arrow"])
def test_every_format_has_the_same_samples(tmp_path: Path, ending: str) -> None:
    rows = write_photos(tmp_path, 24)
    data = open_table(write_table(tmp_path / f"photos.{ending}", rows), val_fraction=0.25)
    assert data.facts().class_names == CLASSES
    found = {}
    for split in ("train", "val"):
        held = data.get_decoded_split(split)
        for number, key in enumerate(held.list_keys(range(len(held)))):
            found[key] = (held.source.read_image(number), CLASSES[held.labels[number]])
    assert found == {row["file"]: (("png", (tmp_path / row["file"]).read_bytes()), row["species"]) for row in rows}
    # The names and sizes are those of the files, and not of the table.
    other = open_table(write_table(tmp_path / "other.csv", rows), val_fraction=0.25)
    assert (other.facts().version, other.facts().label_digest) == (data.facts().version, data.facts().label_digest)


def test_pixels_are_those_of_a_folder(tmp_path: Path) -> None:
    rows = []
    for number in range(30):
        path = tmp_path / "photos" / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, size=(12, 9)))
        rows.append({"file": path.relative_to(tmp_path / "photos").as_posix(), "species": CLASSES[number % 3]})
    folder = ImageFolder(tmp_path / "photos", image_size=6, batch_size=4)
    names = set(folder.list_keys("val", np.arange(folder.count_samples("val"))))
    for name in ("train", "val"):
        part = [row for row in rows if (row["file"] in names) == (name == "val")]
        write_table(tmp_path / "photos" / f"{name}.csv", sorted(part, key=lambda row: row["file"]))
    table = open_table(tmp_path / "photos/train.csv", val=tmp_path / "photos/val.csv", image_size=6)
    assert table.facts().mean == folder.facts().mean
    for split in ("train", "val"):
        one, other = table.get_decoded_split(split), folder.get_decoded_split(split)
        assert one.list_keys(range(len(one))) == other.list_keys(range(len(other)))
        assert np.array_equal(one.labels, other.labels)
        for number in range(len(one)):
            assert np.array_equal(one.get_sample(number), other.get_sample(number))


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("form", ["bytes", "struct", "path in struct"])
def test_bytes_in_the_table(tmp_path: Path, ending: str, form: str) -> None:
    rows = write_photos(tmp_path, 24)
    for row in rows:
        content = (tmp_path / row["file"]).read_bytes()
        struct = {"bytes": None if form == "path in struct" else content, "path": row["file"]}
        row["image"] = content if form == "bytes" else struct
    if form == "path in struct":
        rows[0]["image"]["bytes"] = picture(0)  # a column of nulls alone has no type
    path = write_table(tmp_path / f"photos.{ending}", rows)
    data = open_table(path, image_column="image", val_fraction=0.25)
    found = {}
    for split in ("train", "val"):
        held = data.get_decoded_split(split)
        for number, key in enumerate(held.list_keys(range(len(held)))):
            found[key] = held.source.read_image(number)[1]
    names = [f"{path.name}:{n + 1}" if form == "bytes" else row["file"] for n, row in enumerate(rows)]
    assert found == {name: picture(number) for number, name in enumerate(names)}


def test_usual_columns_need_no_key(tmp_path: Path) -> None:
    rows = [{"image": row["file"], "label": row["species"]} for row in write_photos(tmp_path, 12)]
    path = write_table(tmp_path / "a.csv", rows)
    assert ImageTable(path, image_size=None, val_fraction=0.3).facts().num_classes == 3
    error = fail(path)
    assert (error.what, error.where) == ("the table has no column 'file'", "data.image_column")
    assert "'image', 'label'" in error.why


@pytest.mark.parametrize(
    ("settings", "where", "fix"),
    [
        ({"target": "specie"}, "data.target", "data.target=species"),
        ({"image_column": "fil"}, "data.image_column", "data.image_column=file"),
        ({"group_on": "patients"}, "data.group_on", "data.group_on=patient"),
        ({"split_column": "dy"}, "data.split_column", "data.split_column=day"),
    ],
)
def test_a_column_that_is_not_there(tmp_path: Path, settings: dict[str, Any], where: str, fix: str) -> None:
    path = write_table(tmp_path / "photos.csv", write_photos(tmp_path, 12))
    error = fail(path, **settings)
    assert (error.where, error.fix) == (where, fix)


def test_several_labels_in_every_form(tmp_path: Path) -> None:
    sets = [{CLASSES[k] for k in range(3) if (number >> k) & 1} for number in range(24)]
    rows = write_photos(tmp_path, 24)
    for row, names in zip(rows, sets, strict=True):
        listed = sorted(names)
        row |= {"tags": listed, "text": ";".join(listed), "json": json.dumps(listed), "python": str(listed)}
        row |= {name: int(name in names) for name in CLASSES}
    tables = [write_table(tmp_path / f"photos.{ending}", rows) for ending in ("jsonl", "parquet")]
    texts = write_table(tmp_path / "photos.csv", [{k: v for k, v in row.items() if k != "tags"} for row in rows])
    forms: list[tuple[Path, dict[str, Any]]] = [(table, {"target": "tags"}) for table in tables]
    forms += [(texts, {"target": "text", "label_delim": ";"})]
    forms += [(texts, {"target": name}) for name in ("json", "python")]
    forms += [(table, {"target": list(CLASSES)}) for table in (*tables, texts)]
    digests = set()
    for path, settings in forms:
        data = open_table(path, labels="several", val_fraction=0.3, **settings)
        held = data.get_decoded_split("train")
        for key, hot in zip(held.list_keys(range(len(held))), held.labels, strict=True):
            assert {CLASSES[k] for k in np.flatnonzero(hot)} == sets[int(Path(key).stem)]
        digests.add(data.facts().label_digest)
    assert len(digests) == 1
    assert fail(texts, labels="several", target="text").fix.startswith("data.label_delim=';'")
    assert fail(texts, target=list(CLASSES)).fix == "data.labels=several"
    assert fail(tables[0], target="tags").fix.startswith("data.labels=several")


def test_masks_by_path(tmp_path: Path) -> None:
    rows = []
    for number in range(20):
        for folder, content in (("i", picture(number)), ("m", mask(number))):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{number}.png").write_bytes(content)
        rows.append({"image": f"i/{number}.png", "mask": f"m/{number}.png"})
    settings: dict[str, Any] = {"image_column": "image", "target": None, "labels": "mask", "val_fraction": 0.3}
    data = open_table(write_table(tmp_path / "photos.csv", rows), **settings)
    assert data.facts().num_classes == 3
    for batch in data.train_dataloader():
        for key, y in zip(batch["key"], batch["y"], strict=True):
            numbers = np.random.RandomState(int(Path(key).stem)).randint(0, 256, (8, 8), dtype=np.uint8) % 3
            assert torch.equal(y.flatten()[1:], torch.from_numpy(numbers).flatten()[1:])
    (tmp_path / "m" / "3.png").unlink()
    error = fail(tmp_path / "photos.csv", **settings)
    assert "has no mask" in error.what
    assert "line 5 of photos.csv, column 'mask'" in error.where


class TestHeldOut:
    def test_a_row_stays_on_its_side(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path, 60)
        first = set(list_keys(open_table(write_table(tmp_path / "a.csv", rows[:40]), val_fraction=0.25), "val"))
        second = set(list_keys(open_table(write_table(tmp_path / "b.csv", rows[::-1]), val_fraction=0.25), "val"))
        names = {row["file"] for row in rows[:40]}
        assert first == second & names

    def test_by_group(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "a.csv", write_photos(tmp_path, 60))
        data = open_table(path, group_on="patient", val_fraction=0.25)
        groups = [{int(Path(key).stem) // 4 for key in list_keys(data, split)} for split in ("train", "val")]
        assert groups[1]
        assert not groups[0] & groups[1]

    def test_by_time(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "a.csv", write_photos(tmp_path, 30))
        data = open_table(path, time_on="day", val_fraction=0.2)
        assert sorted(int(Path(key).stem) for key in list_keys(data, "val")) == list(range(24, 30))

    def test_by_class(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "a.csv", write_photos(tmp_path, 60))
        data = open_table(path, stratify=True, val_fraction=0.2)
        assert np.bincount(data.read_labels("val")).tolist() == [4, 4, 4]

    @pytest.mark.parametrize("values", [("train", "valid", "test"), (False, True, True), ("0", "1", "1")])
    def test_by_a_column(self, tmp_path: Path, values: tuple[Any, ...]) -> None:
        rows = write_photos(tmp_path, 30)
        for number, row in enumerate(rows):
            row["part"] = values[0 if number < 20 else 1 if number < 25 else 2]
        for ending in ("csv", "jsonl"):
            is_number = ending == "jsonl" and values[0] == "0"
            typed = [{**row, "part": int(row["part"])} if is_number else row for row in rows]
            data = open_table(write_table(tmp_path / f"a.{ending}", typed), split_column="part")
            counts = [data.count_samples(split) for split in data.list_splits()]
            assert counts == ([20, 5, 5] if values[0] == "train" else [20, 10])
        rows[3]["part"] = "elsewhere"
        error = fail(write_table(tmp_path / "b.csv", rows), split_column="part")
        assert (error.where, "line 5 of b.csv" in error.why) == ("data.split_column", True)

    def test_groups_of_both_sides_are_reported(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = write_photos(tmp_path, 30)
        one, other = write_table(tmp_path / "a.csv", rows[:18]), write_table(tmp_path / "b.csv", rows[18:])
        open_table(one, val=other, group_on="patient").setup("fit")
        assert "2 of 12 validation samples are of groups that training has" in capsys.readouterr().err

    def test_settings_that_contradict(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "a.csv", write_photos(tmp_path, 12))
        for settings in ({"val": path, "split_column": "day"}, {"val": path, "stratify": True}):
            assert fail(path, **settings).where in ("data.split_column", "data.stratify")
        assert fail(path, stratify=True, labels="several").where == "data.stratify"


class TestBadRows:
    def test_an_image_that_is_missing(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path, 30)
        path = write_table(tmp_path / "photos.csv", rows)
        (tmp_path / rows[4]["file"]).unlink()
        error = fail(path, val=path)
        assert error.what == f"1 of 30 rows can't be used: the sample {rows[4]['file']} has no image"
        assert error.where == "data.train: line 6 of photos.csv, column 'file'"
        assert "No such file" in error.why
        data = open_table(path, val=path, on_bad_sample="skip", batch_size=30)
        (batch,) = data.train_dataloader()
        assert batch["weight"].tolist().count(0) == 1

    def test_names_without_their_ending_in_another_folder(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path / "images" / "train", 12)
        for row in rows:
            row["file"] = row["file"].removesuffix(".png")
        path = write_table(tmp_path / "images" / "labels.csv", rows)
        fix = fail(path, val_fraction=0.3).fix.splitlines()[0]
        assert "data.image_root=" in fix
        assert "data.suffix=.png" in fix
        data = open_table(path, image_root=tmp_path / "images" / "train", suffix=".png", val_fraction=0.3)
        assert data.facts().num_classes == 3

    @pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../secret.png"])
    def test_a_path_that_leaves_the_folder(self, tmp_path: Path, name: str) -> None:
        rows = write_photos(tmp_path / "photos", 12)
        (tmp_path / "secret.png").write_bytes(picture(0))
        rows[6]["file"] = name
        path = write_table(tmp_path / "photos" / "photos.csv", rows)
        # Also where bad samples are skipped: a wrong folder is not a bad image.
        for policy in ("fail", "skip"):
            error = fail(path, val=path, on_bad_sample=policy)
            assert error.what == "1 of 12 paths leave the folder of the images"
            assert error.where == "data.train: line 8 of photos.csv, column 'file'"
        if "secret" in name:
            assert error.fix.startswith("data.image_root=")
            rows = [{**row, "file": row["file"] if row is rows[6] else f"photos/{row['file']}"} for row in rows]
            rows[6]["file"] = "secret.png"
            assert open_table(write_table(path, rows), val=path, image_root=tmp_path).facts().num_classes == 3

    def test_absolute_paths_in_the_folder(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path, 12)
        names = [row["file"] for row in rows]
        for row in rows:
            row["file"] = str(tmp_path / row["file"])
        data = open_table(write_table(tmp_path / "a.csv", rows), val=tmp_path / "a.csv")
        # Without the folder: it may be another one on another machine.
        assert sorted(list_keys(data, "val")) == sorted(names)

    def test_addresses(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path, 12)
        rows[0]["file"] = "https://host/a.png"
        assert "1 of 12 images are addresses" in fail(write_table(tmp_path / "a.csv", rows)).what
        with pytest.raises(MLScaleError, match="table not found") as caught:
            ImageTable("s3://bucket/a.parquet").facts()
        assert caught.value.where == "data.train"

    def test_a_path_that_is_there_twice(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path, 12)
        rows[8]["file"] = "./" + rows[2]["file"]
        error = fail(write_table(tmp_path / "a.csv", rows), val=tmp_path / "a.csv")
        assert "is there twice" in error.what
        assert error.why.startswith("line 4 of a.csv has ")
        assert "line 10 of a.csv, column 'file'" in error.where
        data = open_table(tmp_path / "a.csv", val=tmp_path / "a.csv", on_bad_sample="skip", batch_size=12)
        keys = list_keys(data, "train")
        assert len(set(keys)) == 12

    def test_an_image_that_cannot_be_decoded(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path, 12)
        (tmp_path / rows[5]["file"]).write_bytes(b"no image")
        error = fail(write_table(tmp_path / "a.csv", rows), val=tmp_path / "a.csv")
        assert error.where == "line 7 of a.csv, column 'file'"
        assert "not an image of a known format" in error.why

    def test_a_pickle_is_not_decoded(self, tmp_path: Path) -> None:
        """Whatever a file is called, it is decoded as an image."""
        rows = write_photos(tmp_path, 12)
        (tmp_path / "a" / "x.pkl").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
        rows[0]["file"] = "a/x.pkl"
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            assert "not an image" in fail(write_table(tmp_path / "a.csv", rows), val=tmp_path / "a.csv").why
        finally:
            os.chdir(here)
        assert not (tmp_path / "hacked").exists()

    def test_rows_without_a_label_or_an_image(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path, 12)
        rows[3]["species"], rows[7]["file"] = "", ""
        path = write_table(tmp_path / "a.csv", rows)
        error = fail(path, val=path)
        assert error.what.startswith("2 of 12 rows can't be used")
        assert (error.why, "line 5 of a.csv" in error.where) == ("species is missing", True)
        data = open_table(path, val=path, on_bad_sample="skip", batch_size=12)
        (batch,) = data.train_dataloader()
        assert batch["weight"].tolist().count(0) == 2

    def test_numbers_with_fractions_are_no_classes(self, tmp_path: Path) -> None:
        rows = [{**row, "age": 1.5 + n} for n, row in enumerate(write_photos(tmp_path, 12))]
        error = fail(write_table(tmp_path / "a.csv", rows), target="age")
        assert (error.where, "1.5" in error.why) == ("data.target", True)

    def test_an_image_that_goes_away(self, tmp_path: Path) -> None:
        rows = write_photos(tmp_path, 12)
        data = open_table(write_table(tmp_path / "a.csv", rows), val=tmp_path / "a.csv", batch_size=12)
        data.facts()
        shutil.rmtree(tmp_path / "a")
        with pytest.raises(MLScaleError, match="cannot be decoded") as caught:
            list(data.train_dataloader())
        assert "No such file" in caught.value.why


def test_windows_of_production(tmp_path: Path) -> None:
    """Retraining mixes the table with shards that production has written."""
    path = write_table(tmp_path / "a.csv", write_photos(tmp_path, 24))
    data = open_table(path, val_fraction=0.3)
    pixels = [np.random.default_rng(n).integers(0, 256, (3, 8, 8), np.uint8) for n in range(8)]
    for part in ("train", "val"):
        data.write_window(tmp_path / "window" / part, pixels, ["cat", "dog"] * 4)
    assert {path.name for path in (tmp_path / "window").iterdir()} == {"train", "val"}


def test_images_are_compared_with_their_recorded_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSCALE_CACHE", str(tmp_path / "cache"))
    table = write_table(tmp_path / "rows.csv", write_photos(tmp_path, 40))
    assert str(open_table(table).record_digests()) == "digests of 40 images recorded"
    assert str(open_table(table).record_digests()) == "digests of 40 images compared"
    changed = next(path for path in tmp_path.rglob("17.png"))
    content = bytearray(changed.read_bytes())
    content[-20] ^= 1  # in the last chunks: the same size, and not in the first block of it
    changed.write_bytes(content)
    for read in (open_table(table).record_digests, lambda: read_images(open_table(table))):
        with pytest.raises(MLScaleError, match=r"the sample b/17\.png is corrupt"):
            read()
    (digests,) = tmp_path.rglob("image_digests/*.json")
    digests.write_text(digests.read_text().replace("1", "2", 1))
    with pytest.raises(MLScaleError, match="the recorded digests of images can't be read"):
        open_table(table).facts()


def read_images(data: ImageTable) -> None:
    for split in data.list_splits():
        source = data.get_decoded_split(split).source
        for sample in range(len(source)):
            source.read_image(sample)
