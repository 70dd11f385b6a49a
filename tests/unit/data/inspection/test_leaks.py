"""Groups and times that training and validation share, columns that give the target away, images that both have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlscale.data import BreastCancer, Diabetes, Digits, ImageFolder, TableFiles, WebDataset
from mlscale.data.inspection import shared_rows
from mlscale.data.inspection.leaks import find_leaking_columns, format_leaking_column
from mlscale.data.inspection.shared_rows import find_shared_images
from mlscale.data.shards.sample_source import SampleSource
from mlscale.errors import MLScaleError
from tests.unit.data.tables.test_hold_out import write


def test_groups_and_times_that_overlap_are_counted(tmp_path: Path) -> None:
    names = ("x", "patient", "day", "target")
    train = [[row / 7, f"p{row % 10}", f"2026-01-{1 + row % 20:02}", row % 2] for row in range(60)]
    val = [[row / 3 + 0.01, f"p{row + 8}", f"2026-01-{15 + row:02}", row % 2] for row in range(12)]
    paths = [write(tmp_path / f"{name}.csv", rows, names) for name, rows in (("t", train), ("v", val))]
    grouped = TableFiles(paths[0], "target", val=paths[1], group_on="patient", ignore=["day"])
    grouped.facts()
    assert grouped.split_leaks == [
        "leak      2 of 12 validation samples are of groups that training has, too, by 'patient': 2 groups, such as "
        "that of line 2 of v.csv; the metric counts what was learnt of them"
    ]
    timed = TableFiles(paths[0], "target", val=paths[1], time_on="day", ignore=["patient"])
    timed.facts()
    assert timed.split_leaks == [
        "leak      6 of 12 validation samples are not later than the last training sample, by 'day': line 2 of v.csv "
        "is the earliest; the metric is not one of the future"
    ]
    apart = TableFiles(paths[0], "target", val=paths[1], ignore=["day", "patient"])
    apart.facts()
    assert apart.split_leaks == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["text", "code", "score", "squared", "noisy", "none"])
def test_a_column_that_gives_the_target_away_is_found(kind: str, seed: int) -> None:
    draw = np.random.default_rng([20261129, seed])
    count, held = 600, 200
    number = draw.normal(size=count + held)
    y = (number > 0.3).astype(np.int64)
    is_number = kind in ("squared", "noisy")
    target = np.exp(number) if is_number else y
    planted = {
        "text": [f"class {label}" for label in y],
        "code": np.where(draw.random(len(y)) < 0.003, 1 - y, y).astype(np.float64),
        "score": number * 1000 - 7,
        "squared": number**3,
        "noisy": number + draw.normal(size=len(number)) * 0.2,
        "none": np.where(draw.random(len(y)) < 0.08, 1 - y, y).astype(np.float64),
    }[kind]
    columns: dict[str, Any] = {"useful": number + draw.normal(size=len(number)), "planted": planted}
    columns["city"] = draw.choice(["Rom", "Köln"], len(number)).tolist()
    sides = [{name: values[part] for name, values in columns.items()} for part in (slice(count), slice(count, None))]
    found = find_leaking_columns(sides[0], sides[1], (target[:count], target[count:]))
    assert [column.name for column in found] == ["planted"] * (kind not in ("noisy", "none"))
    assert all("'planted' alone predicts" in format_leaking_column(column) for column in found)


def test_bundled_tables_have_no_such_column() -> None:
    for data in (BreastCancer(), Diabetes()):
        assert data.describe_leaks() == []


def test_a_column_is_reported_with_what_leaves_it_out(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    rows = [[round(float(draw.normal()), 6), f"level {row % 3}", "ABC"[row % 3]] for row in range(400)]
    data = TableFiles(write(tmp_path / "t.csv", rows, ("x", "risk level", "target")), "target")
    (line,) = data.describe_leaks()
    assert line.startswith(
        "leak      'risk level' alone predicts the class of 100.0% of the validation samples (the most"
    )
    assert line.endswith("leave it out: 'data.ignore=[\"risk level\"]'")


def make_photos(root: Path, shared: int, seed: int) -> Path:
    draw = np.random.default_rng(seed)
    for split, count in (("train", 30), ("val", 12)):
        for name in ("a", "b"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draw.integers(0, 255, (12, 12, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    for number in range(shared):
        (root / "val/b" / f"copy{number}.png").write_bytes((root / "train/a" / f"{number}.png").read_bytes())
    return root


@pytest.mark.parametrize("shared", [0, 1, 5])
def test_images_with_the_same_bytes_are_counted(
    shared: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ImageFolder(make_photos(tmp_path / "photos", shared, seed=shared), image_size=None)
    data.setup("fit")
    line = f"leak      {shared} of {24 + shared} validation samples are in the training data, too: b/copy"
    assert (line in capsys.readouterr().err) == bool(shared)


def test_digests_that_are_recorded_spare_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlscale import api

    photos = make_photos(tmp_path / "photos", 3, seed=9)
    folder = tmp_path / "shards"
    api.run("prepare", ["data=imagefolder", f"data.root={photos}", "data.image_size=null", f"to={folder}"])
    data = WebDataset(str(folder / "train"), str(folder / "val"))
    data.record_digests()
    recorded = WebDataset(str(folder / "train"), str(folder / "val"))
    sources = [recorded.get_decoded_split(split).source for split in ("train", "val")]
    read: list[int] = []
    original = shared_rows._digest_image

    def count_reads(source: SampleSource, row: int) -> bytes | None:
        read.append(row)
        return original(source, row)

    monkeypatch.setattr(shared_rows, "_digest_image", count_reads)
    found = find_shared_images(sources[0], sources[1])
    assert found is not None
    assert (found.rows, found.of) == (3, 27)
    assert len(read) == 6


def test_bundled_images_are_not_shared() -> None:
    data = Digits()
    data.prepare_data()
    found = find_shared_images(*(data.get_decoded_split(split).source for split in ("train", "val")))
    assert found is None


def test_images_of_a_group_stay_on_one_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = make_photos(tmp_path / "photos", 0, seed=4)
    for name in ("a", "b"):
        for number, path in enumerate(sorted((photos / "train" / name).iterdir())):
            path.rename(path.with_name(f"patient{number % 9}_{number}.png"))
    data = ImageFolder(photos / "train", group_on="(patient[0-9]+)_", val_fraction=0.3, image_size=None)
    sides = [
        {key.partition("/")[2].partition("_")[0] for key in data.list_keys(split, np.arange(data.count_samples(split)))}
        for split in ("train", "val")
    ]
    assert all(sides)
    assert not sides[0] & sides[1]
    with pytest.raises(MLScaleError, match="60 of 60 images have no group"):
        ImageFolder(photos / "train", group_on="subject", image_size=None).facts()
    with pytest.raises(MLScaleError, match="not a regular expression"):
        ImageFolder(photos / "train", group_on="(", image_size=None)
    for number, path in enumerate(sorted((photos / "val/a").iterdir())):
        path.rename(path.with_name(f"patient{number + 8}_{number}.png"))
    for number, path in enumerate(sorted((photos / "val/b").iterdir())):
        path.rename(path.with_name(f"patient{number + 100}_{number}.png"))
    ImageFolder(photos, group_on="(patient[0-9]+)_", image_size=None).setup("fit")
    assert "leak      1 of 24 validation samples are of groups that training has, too" in capsys.readouterr().err
