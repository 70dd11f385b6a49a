"""Data that is written as shards has the samples, labels and pixels of its source, whatever happens on the way."""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import Tensor

from mlscale import contracts
from mlscale.cli import main
from mlscale.data import ImageFolder, TFRecord, WebDataset
from mlscale.data.images.image_modules import ImageData
from mlscale.data.order.bad_samples import BadRecord, read_bad_list
from mlscale.data.shards.index_files import INDEX_FOLDER_NAME
from mlscale.data.writing.sample_contents import FORMATS, find_left_out
from mlscale.data.writing.write_shards import Part, WrittenShards, write_shards
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import picture, write_masked, write_tar

CONTAINERS = pytest.mark.parametrize("container", ["tar", "tfrecord"])


def folder_of_photos(tmp_path: Path) -> ImageFolder:
    for number in range(60):
        path = tmp_path / "photos" / ("cat", "dog", "ünï")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return ImageFolder(tmp_path / "photos", image_size=None, batch_size=4)


def write(
    data: ImageData, folder: Path, container: str, *, part: Part | None = None, size: int = 4000
) -> WrittenShards:
    return write_shards(
        data,
        folder,
        container=container,
        shard_bytes=size,
        seed=3,
        licence="CC0",
        part=part or Part(),
        progress=lambda samples: None,
    )


def read(folder: Path, container: str, **settings: Any) -> ImageData:
    kind: Any = {"tar": WebDataset, "tfrecord": TFRecord}[container]
    data: ImageData = kind(folder / "train", folder / "val", image_size=None, batch_size=4, **settings)
    return data


def list_samples(data: ImageData, split: str) -> list[tuple[Tensor, Any]]:
    """Return pixels, as they are stored, and label of every sample, in an order that does not depend on its own."""
    held = data.get_decoded_split(split)
    pixels = [torch.from_numpy(held.get_sample(number)) for number in range(len(held))]
    targets = [held.masks.get_mask(n) for n in range(len(held))] if held.masks is not None else held.labels
    return sorted(
        zip(pixels, map(torch.as_tensor, targets), strict=True),
        key=lambda pair: (pair[0].numpy().tobytes(), pair[1].numpy().tobytes()),
    )


def assert_same_samples(mine: ImageData, theirs: ImageData) -> None:
    for split in ("train", "val"):
        for (x, y), (other_x, other_y) in zip(list_samples(mine, split), list_samples(theirs, split), strict=True):
            assert torch.equal(x, other_x)
            assert torch.equal(y, other_y)


@CONTAINERS
def test_classes_with_names(tmp_path: Path, container: str) -> None:
    photos = folder_of_photos(tmp_path)
    written = write(photos, tmp_path / "out", container)
    assert written.written > 4
    assert written.is_complete
    data = read(tmp_path / "out", container)
    assert data.facts().class_names == ("cat", "dog", "ünï")
    assert_same_samples(data, photos)
    document = json.loads((tmp_path / "out" / "dataset.json").read_text())
    jsonschema.validate(document, contracts.load_schema("dataset"))
    assert (document["class_names"], document["licence"]) == (["cat", "dog", "ünï"], "CC0")
    assert sum(document["class_counts"]) == document["splits"]["train"]["samples"] == 54
    for split, planned in document["splits"].items():
        labels = data.get_decoded_split(split).labels
        assert planned["class_counts"] == np.bincount(labels, minlength=3).tolist()


@CONTAINERS
def test_several_labels_and_masks(tmp_path: Path, container: str) -> None:
    write_masked(tmp_path / "t", 40)
    write_masked(tmp_path / "v", 9)
    several = WebDataset(tmp_path / "t", tmp_path / "v", image_key="png", labels="several", batch_size=4)
    write(several, tmp_path / "several", container)
    assert_same_samples(read(tmp_path / "several", container, labels="several"), several)
    masks = WebDataset(tmp_path / "t", tmp_path / "v", image_key="png", labels="mask", batch_size=4)
    write(masks, tmp_path / "masks", container)
    settings: Any = {
        "tar": {},
        "tfrecord": {"schema": {"image": "image/encoded", "label": "image/segmentation/class/encoded"}},
    }[container]
    assert_same_samples(read(tmp_path / "masks", container, labels="mask", **settings), masks)


@CONTAINERS
def test_what_is_missing_is_written_again(tmp_path: Path, container: str) -> None:
    photos = folder_of_photos(tmp_path)
    write(photos, tmp_path / "out", container)
    shards = sorted((tmp_path / "out" / "train").glob("train-*"))
    before = {path: path.read_bytes() for path in shards}
    shards[1].unlink()
    (tmp_path / "out" / "train" / ".aside-train-00001-of-00009.tar-0000").write_bytes(b"half")
    (tmp_path / "out" / ".aside-.plan.json-0000").write_bytes(b"half")
    again = write(photos, tmp_path / "out", container)
    others = len(shards) - 1 + len(list((tmp_path / "out" / "val").glob("val-*")))
    assert (again.written, again.found_before) == (1, others)
    assert not list((tmp_path / "out").rglob(".aside*"))
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "train").glob("train-*")} == before


def test_parts_are_the_whole(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path)
    write(photos, tmp_path / "whole", "tar")
    done = [write(photos, tmp_path / "parts", "tar", part=Part(number, 3)) for number in (2, 0, 1)]
    assert [one.is_complete for one in done] == [False, False, True]
    for path in (tmp_path / "whole").rglob("*.*"):
        # An index has the times of its shard.
        if path.is_file() and path.parent.name != INDEX_FOLDER_NAME:
            assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_shards_are_of_the_size_and_plain_tars(tmp_path: Path) -> None:
    write(folder_of_photos(tmp_path), tmp_path / "out", "tar", size=20_000)
    sizes = [path.stat().st_size for path in (tmp_path / "out" / "train").glob("train-*")]
    assert max(sizes) < 26_000
    with tarfile.open(next((tmp_path / "out" / "train").glob("train-*"))) as tar:
        names = tar.getnames()
    assert [name.partition(".")[2] for name in names] == ["png", "cls"] * (len(names) // 2)


def test_other_data_is_not_overwritten(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path)
    write(photos, tmp_path / "out", "tar")
    with pytest.raises(MLScaleError, match=r"holds other data[\s\S]*another container"):
        write(photos, tmp_path / "out", "tfrecord")
    (tmp_path / "photos" / "cat" / "new.png").write_bytes(picture(99))
    with pytest.raises(MLScaleError, match="another source version"):
        write(ImageFolder(tmp_path / "photos", image_size=None), tmp_path / "out", "tar")
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "thesis.doc").write_text("x")
    with pytest.raises(MLScaleError, match=r"holds other files[\s\S]*thesis.doc"):
        write(photos, tmp_path / "mine", "tar")


def test_arrays_are_not_written_as_records(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 4, 4), np.float32))
    members = [
        (f"{n}.{kind}", content) for n in range(6) for kind, content in (("npy", stream.getvalue()), ("cls", b"0"))
    ]
    path = write_tar(tmp_path / "a.tar", members)
    data = WebDataset(path, path, batch_size=2)
    with pytest.raises(MLScaleError, match=r"is a .npy array[\s\S]*format=tar"):
        write(data, tmp_path / "records", "tfrecord")
    write(data, tmp_path / "tars", "tar")
    assert_same_samples(read(tmp_path / "tars", "tar"), data)


def test_the_command_and_the_words_that_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_photos(tmp_path)
    words = ["data=imagefolder", "data.root=photos", "data.image_size=8", "format=tfrecord"]
    assert main(["prepare", *words, "to=my shards", "part=1/1", "output=json"]) == 0
    printed = json.loads(capsys.readouterr().out)["details"]["train"]
    assert main(["prepare", *shlex.split(printed)]) == 0
    assert "54 training and 6 validation samples" in capsys.readouterr().out
    assert main(["prepare", *words, "to=x", "part=9/8"]) == 2
    assert "part=1/8" in capsys.readouterr().err
    assert main(["prepare", "data=breast_cancer", "to=x"]) == 2
    assert "only images and text files are written" in capsys.readouterr().err


@CONTAINERS
def test_images_of_several_sizes_need_no_size_until_they_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], container: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 12), ("val", 4)):
        members = [
            (f"{n:03}.{end}", content)
            for n in range(count)
            for end, content in (
                ("png", picture(n + 20 * len(split), size=(70 + n, 80 - n))), ("cls", b"cat" if n % 2 else b"dog")
            )
        ]  # fmt: skip
        # Of another name each time: a line is printed once in a process.
        write_tar(tmp_path / f"{split}-{container}.tar", members)
    words = ["data=webdataset", f"data.train=train-{container}.tar", f"data.val=val-{container}.tar"]
    assert main(["prepare", *words, f"format={container}", "to=out", "shard_mb=0.05", "output=json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["sentence"].startswith("16 samples in out: ")
    assert result["metrics"]["shards_written"] > 2
    assert "70×80 pixels" in printed.err
    assert "data.image_size=64" in printed.err
    training = shlex.split(result["details"]["train"])
    assert training[-1] == "data.image_size=64"
    # What only looks at data takes images of any size as well; a run, and what shows its input, does not.
    for command in (["prepare"], ["data", "show"], ["data", "verify"]):
        assert main([*command, *words]) == 0
        assert main([*command, *training[:-1], "data.image_size=null"]) == 0
    capsys.readouterr()
    assert main(["data", "sample", *words, "page=sheet.html"]) == 2
    assert "the images differ in size" in capsys.readouterr().err
    assert main(["data", "diff", "out", "out"]) == 0
    kind: Any = {"tar": WebDataset, "tfrecord": TFRecord}[container]
    out = kind("out/train", "out/val", image_size=64, batch_size=4).get_decoded_split("train").source
    stored = {out.read_image(sample)[1] for sample in range(len(out))}
    assert stored == {picture(n + 100, size=(70 + n, 80 - n)) for n in range(12)}


@CONTAINERS
def test_bad_samples_of_a_list_are_left_out(tmp_path: Path, container: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of_photos(tmp_path)
    photos = tmp_path / "photos"
    bad = [("cat", 3), ("dog", 7), ("ünï", 11)]
    for name, number in bad:
        path = photos / name / f"{number}.png"
        path.write_bytes(path.read_bytes()[:40])
    words = ["data=imagefolder", f"data.root={photos}", "data.image_size=null"]
    assert main(["data", "verify", *words, f"bad={tmp_path / 'bad.jsonl'}", "output=json"]) == 4
    out = tmp_path / "clean"
    if container == "tfrecord":
        # Encoded as they are, and read: only then is a cut one found, and the fix is what follows.
        whole = [*words, "data.on_bad_sample=skip", f"to={tmp_path / 'whole'}", "reencode.format=png"]
        assert main(["prepare", *whole]) == 2
        assert "leave_out=bad.jsonl" in capsys.readouterr().err
    clean = [*words, f"to={out}", f"format={container}", f"leave_out={tmp_path / 'bad.jsonl'}"]
    # The list is enough: that the source has bad samples is no error of this command.
    assert main(["prepare", *clean]) == 0
    capsys.readouterr()
    option = FORMATS[container]
    splits = [f"data.{split}={out / split}" for split in ("train", "val")]
    assert main(["data", "verify", f"data={option}", *splits, "data.image_size=null", "output=json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"samples": 57, "bad_samples": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"split": "train", "sample": "cat/999.png"}', "1 of 1 samples to leave out are not in this data"),
        ('{"split": "extra", "sample": "cat/3.png"}', "1 of 1 samples to leave out are not in this data"),
        ('{"sample": "cat/3.png"}', "line 1 of .* names no sample"),
        ("cat/3.png", "line 1 of .* names no sample"),
        (None, "the list .* can't be read"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, line: str | None, message: str) -> None:
    photos, path = folder_of_photos(tmp_path), tmp_path / "bad.jsonl"
    if line is not None:
        path.write_text(line + "\n")
    with pytest.raises(MLScaleError, match=message) as caught:
        write_shards(
            photos, tmp_path / "out", container="tar", shard_bytes=4000, seed=3, licence=None, part=Part(),
            progress=lambda samples: None,
            left_out=find_left_out(photos, read_bad_list(path, where="leave_out"), drop_copies=False),
        )  # fmt: skip
    assert caught.value.where == "leave_out"
    assert not (tmp_path / "out").exists()


@CONTAINERS
def test_copies_are_written_once_and_never_to_validation(tmp_path: Path, container: str) -> None:
    draw = np.random.default_rng(7)
    images = {f"{split}{number}": picture(int(draw.integers(10**6))) for split in "tv" for number in range(20)}
    placed = {
        "train": [f"t{number}" for number in range(20)] + ["t3", "t3", "t8"],
        "val": [f"v{number}" for number in range(20)] + ["v1", "t5", "t8"],
    }
    for split, names in placed.items():
        for number, name in enumerate(names):
            path = tmp_path / "photos" / split / "ab"[number % 2] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[name])
    words = [f"data.root={tmp_path / 'photos'}", "data.image_size=null", f"format={container}", "drop_copies=true"]
    assert main(["prepare", "data=imagefolder", *words, f"to={tmp_path / 'out'}"]) == 0
    written = read(tmp_path / "out", container)
    for split, letter in (("train", "t"), ("val", "v")):
        source = written.get_decoded_split(split).source
        found = sorted(source.read_image(number)[1] for number in range(len(source)))
        assert found == sorted(content for name, content in images.items() if name[0] == letter)
    document = json.loads((tmp_path / "out/dataset.json").read_text())
    jsonschema.validate(document, contracts.load_schema("dataset"))
    assert sum(document["class_counts"]) == 20
    assert document["class_counts"] == list(written.facts().class_counts)
    assert document["splits"]["val"]["class_counts"] == [11, 9]  # the copy of v1 that is kept is in a


@CONTAINERS
def test_a_flipped_bit_is_named_by_verify_and_by_the_same_command(
    tmp_path: Path, container: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = folder_of_photos(tmp_path)
    for number, old in enumerate(sorted((tmp_path / "photos").rglob("*.png"))):
        # Files without checksums of their own, which decode whatever a bit of their pixels is.
        old.with_suffix(".bmp").write_bytes(picture(number, kind="BMP"))
        old.unlink()
    write(photos, tmp_path / "out", container)
    path = sorted((tmp_path / "out/train").glob(f"*.{container}"))[0]
    content = bytearray(path.read_bytes())
    content[content.index(b"BM") + 100] ^= 1
    path.write_bytes(content)
    option = FORMATS[container]
    words = [f"data={option}", *(f"data.{split}={tmp_path / 'out' / split}" for split in ("train", "val"))]
    assert main(["data", "verify", *words, "data.image_size=24"]) == 4
    assert "read 60 samples (54 train, 6 val): 1 bad sample" in capsys.readouterr().out
    if container == "tar":
        with pytest.raises(MLScaleError, match=r"1 member of .* changed after the digests"):
            write(photos, tmp_path / "out", container)


def test_an_index_that_can_not_be_written_names_the_folder_that_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_photos(tmp_path)
    words = ["prepare", "data=imagefolder", "data.root=photos", "data.image_size=8", "to=out"]
    monkeypatch.setattr("mlscale.data.shards.member_digests.save_index", _refuse)
    assert main(words) == 5
    error = capsys.readouterr().err
    assert error.count("fix:   to=<a folder you may write to") == 2
    assert error.count("can't write") == 2  # the folders of training and validation, however many shards they have
    assert "data.index" not in error


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_other_samples_that_are_left_out_are_other_data(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path)

    def write_without(key: str) -> WrittenShards:
        left_out = find_left_out(photos, [BadRecord("train", key, "")], drop_copies=False)
        return write_shards(
            photos, tmp_path / "out", container="tar", shard_bytes=4000, seed=3, licence=None, part=Part(),
            progress=lambda samples: None, left_out=left_out,
        )  # fmt: skip

    keys = photos.list_keys("train", np.arange(2))
    assert write_without(keys[0]).is_complete
    with pytest.raises(MLScaleError, match="holds other data") as caught:
        write_without(keys[1])
    assert caught.value.why == "it was begun with another selection"
