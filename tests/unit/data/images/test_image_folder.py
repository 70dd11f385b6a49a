"""ImageFolder: the same batches, from files."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mlscale.data import ImageFolder
from mlscale.data.decoding import pil
from mlscale.data.decoding.image_files import IMAGE_EXTENSIONS
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import picture


def write_folder(root: Path, count: int, *, classes: int = 7) -> Path:
    for i in range(count):
        path = root / f"class{i % classes}" / ("deep" if i % 5 == 0 else ".") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i, size=(12, 9)))
    return root


def test_train_and_val_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 70)
    write_folder(tmp_path / "val", 14)
    data = ImageFolder(tmp_path, image_size=8, batch_size=32)
    facts = data.facts()
    assert (facts.num_classes, facts.channels, facts.height, facts.width) == (7, 3, 8, 8)
    assert (facts.train_samples, facts.val_samples) == (70, 14)
    assert facts.class_names == tuple(f"class{i}" for i in range(7))
    for batch in data.train_dataloader():
        for key, y in zip(batch["key"], batch["y"].tolist(), strict=True):
            assert key.startswith(f"class{y}/")


def test_a_part_is_held_out_by_class(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", 70)

    def keys(root: Path, **kwargs: Any) -> set[str]:
        loader = ImageFolder(root, image_size=8, val_fraction=0.2, **kwargs).val_dataloader()
        return {key for batch in loader for key in batch["key"]}

    held = keys(tmp_path / "a")
    assert [sum(key.startswith(f"class{i}/") for key in held) for i in range(7)] == [2] * 7
    assert keys(tmp_path / "a", seed=5) == held
    data = ImageFolder(tmp_path / "a", image_size=8, val_fraction=0.2, batch_size=56)
    (batch,) = data.train_dataloader()
    assert not held & set(batch["key"])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert ImageFolder(tmp_path / "b", image_size=8, val_fraction=0.2).facts() == data.facts()
    (tmp_path / "b" / "class0" / "70.png").write_bytes(picture(70))
    assert ImageFolder(tmp_path / "b", image_size=8).facts().version != data.facts().version


@pytest.mark.parametrize(
    ("sizes", "suggested"),
    [
        ([(300, 200), (375, 500), (640, 480)], 384),  # shorter sides 200, 375, 480: the median, in steps of 32
        ([(70, 65), (64, 80), (90, 66)], 64),
        ([(20, 30), (28, 28), (63, 70)], 20),
    ],
)
def test_what_is_suggested_for_mixed_sizes_does(tmp_path: Path, sizes: list[tuple[int, int]], suggested: int) -> None:
    for number, size in enumerate(sizes * 2):
        for split in ("train", "val"):
            path = tmp_path / split / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number, size=size))
    assert failure(tmp_path, image_size=None).fix == f"data.image_size={suggested}"
    data = ImageFolder(tmp_path, image_size=suggested, batch_size=2)
    for batch in (*data.train_dataloader(), *data.val_dataloader()):
        assert batch["x"].shape[1:] == (3, suggested, suggested)


def failure(root: Path, **kwargs: Any) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        ImageFolder(root, **{"image_size": 8, **kwargs}).facts()
    assert caught.value.where.startswith("data.")
    return caught.value


def test_what_is_reported_when_it_is_wrong(tmp_path: Path) -> None:
    assert "does not exist" in failure(tmp_path / "nowhere").what
    assert failure(tmp_path).why == "it is empty"
    (tmp_path / "x.png").write_bytes(picture(0))
    assert failure(tmp_path).why == "1 images are in it directly"
    write_folder(tmp_path / "one", 3, classes=3)
    assert failure(tmp_path / "one").what == "the class 'class0' has a single image"
    (tmp_path / "one" / "empty").mkdir()
    assert "no image in 1 of the 4 class folders" in failure(tmp_path / "one").what
    assert "empty" in failure(tmp_path / "one").why
    write_folder(tmp_path / "half" / "train", 6, classes=3)
    assert "no val folder" in failure(tmp_path / "half").what
    write_folder(tmp_path / "half" / "val", 8, classes=4)
    assert "a label that the training data does not have" in failure(tmp_path / "half").what
    assert failure(tmp_path, val_fraction=1.0).fix == "data.val_fraction=0.1"


def test_a_link_to_a_folder_above_repeats_no_image(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root, elsewhere = write_folder(tmp_path / "photos", 14), write_folder(tmp_path / "more", 2, classes=1)
    before = ImageFolder(root, image_size=8, batch_size=7).facts()
    (root / "class0" / "above").symlink_to("..")
    (root / "class1" / "self").symlink_to(".")
    facts = ImageFolder(root, image_size=8, batch_size=7).facts()
    assert (facts.train_samples, facts.val_samples) == (before.train_samples, before.val_samples)
    assert "skipped links to a folder that they are in: 2, the first: class0/above" in capfd.readouterr().err
    # A link to another folder is a folder of the class.
    (root / "class2" / "more").symlink_to(elsewhere)
    facts = ImageFolder(root, image_size=8, batch_size=7).facts()
    assert facts.train_samples + facts.val_samples == before.train_samples + before.val_samples + 2


@pytest.mark.parametrize("on_bad_sample", ["fail", "skip"])
def test_links_to_nothing_are_counted_and_removed_by_the_command(tmp_path: Path, on_bad_sample: str) -> None:
    root = tmp_path / "my photos"
    train = write_folder(root / "train", 14)
    write_folder(root / "val", 7)
    (train / "class0" / "gone.png").symlink_to("nowhere.png")
    (train / "class0" / "self.png").symlink_to("self.png")
    caught = failure(root, on_bad_sample=on_bad_sample)
    assert caught.what == f"2 of 16 images in {str(train)!r} do not exist"
    assert caught.why == "the first: class0/gone.png, a link to nowhere.png"
    subprocess.run(["bash", "-c", caught.fix.partition(", ")[0]], check=True)
    assert ImageFolder(root, image_size=8, batch_size=7).facts().train_samples == 14


def test_groups_that_leave_one_side_empty(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 21)
    # Ten groups, and none of them is in so small a part.
    caught = failure(root, group_on=r"([0-9])\.png", val_fraction=0.001)
    assert caught.fix.startswith("data.val_fraction=0.2")
    assert ImageFolder(root, image_size=8, batch_size=1, group_on=r"([0-9])\.png", val_fraction=0.2).facts()
    # A match without its group.
    assert failure(root, group_on="class([0-2])|class").what == "12 of 21 images have no group"


def test_an_image_that_goes_away(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 14)
    data = ImageFolder(root, image_size=8, batch_size=7)
    data.facts()
    shutil.rmtree(root / "class3")
    with pytest.raises(MLScaleError, match="cannot be read"):
        list(data.train_dataloader())


def test_values_are_those_of_pils_own_resizing_and_cutting(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 14)
    data = ImageFolder(root, image_size=6, batch_size=7)
    (batch,) = data.train_dataloader()
    number = int(Path(batch["key"][0]).stem)
    middle = (1, 0, 10, 9)
    image = Image.open(io.BytesIO(picture(number, size=(12, 9)))).crop(middle).resize((6, 6), Image.Resampling.BILINEAR)
    mean, std = torch.tensor(data.facts().mean)[:, None, None], torch.tensor(data.facts().std)[:, None, None]
    expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    assert (batch["x"][0] * std + mean - expected).abs().max() < 1.01


def test_a_models_normalisation_counts_for_data_that_was_read_before(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 14)
    write_folder(tmp_path / "val", 7)
    read, unread = (ImageFolder(tmp_path, image_size=8, batch_size=7) for _ in range(2))
    own = read.facts()
    first = next(iter(read.val_dataloader()))["x"]
    for data in (read, unread):
        data.normalise_by((0.1, 0.2, 0.3), (2.0, 2.0, 2.0))
    after, expected = (next(iter(data.val_dataloader()))["x"] for data in (read, unread))
    assert torch.equal(after, expected)
    assert not torch.equal(after, first)
    assert read.facts().mean == (0.1, 0.2, 0.3)
    read.normalise_by(own.mean, own.std)
    assert torch.equal(next(iter(read.val_dataloader()))["x"], first)


FORMATS = {
    "jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP",
    "dib": "DIB", "tif": "TIFF", "TIFF": "TIFF", "ppm": "PPM", "pnm": "PPM",
}  # fmt: skip


def write_formats(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, (ending, form) in enumerate(FORMATS.items()):
        Image.new("RGB", (12, 9), (number, 2, 3)).save(folder / f"{number}.{ending}", form)


def test_every_format_of_the_decoder_is_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_formats(tmp_path / "train" / name)
        write_formats(tmp_path / "val" / name)
    data = ImageFolder(tmp_path, image_size=8, batch_size=8)
    assert data.facts().train_samples == 2 * len(FORMATS)
    assert sum(len(batch["x"]) for batch in data.val_dataloader()) == 2 * len(FORMATS)


def test_every_format_of_the_decoder_has_an_ending() -> None:
    Image.init()
    endings = {ending[1:] for ending, form in Image.registered_extensions().items() if form in pil.FORMATS}
    assert endings - IMAGE_EXTENSIONS <= {"mpo", "rgba", "pfm"}  # of SGI's raw images, and of floats


def write_images(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(picture(number))
    return root


@pytest.mark.parametrize(
    ("paths", "reported"),
    [
        (["loose.png", "b.png"], "skipped images outside of the class folders: 2, the first: b.png"),
    ],
)
def test_images_that_may_be_meant_otherwise_are_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], paths: list[str], reported: str
) -> None:
    root = write_images(tmp_path / "photos", *paths)
    if "loose.png" in paths:
        write_images(root, *(f"{name}/{number}.png" for name in "ab" for number in range(2)))
    for _ in range(2):
        ImageFolder(root, image_size=8).facts()
    assert capsys.readouterr().err.count(reported) == 1


def test_folders_that_are_named_as_splits_are_refused(tmp_path: Path) -> None:
    names = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(8)]
    splits = write_images(tmp_path, *(f"{split}/{name}" for split in ("training", "Val") for name in names))
    assert failure(splits).what == f"the folders of {str(splits)!r} are named as splits: Val, training"


def test_skipped_files_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path, 8, classes=2)
    for name in ("a.heic", "b.txt", ".hidden"):
        (tmp_path / "class0" / name).write_text("")
    ImageFolder(tmp_path, image_size=8).facts()
    assert "skipped files that do not end as images do: 2, the first: class0/a.heic" in capsys.readouterr().err
