"""Windows of production, mixed with images: shape, scale and classes stay those of the data."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mlscale.data import ImageFolder, WebDataset
from mlscale.data.class_labels import Classes
from mlscale.data.data_module import OrderedData
from mlscale.data.images.image_modules import ImageData
from mlscale.data.order.policy import Policy
from mlscale.data.shards.secure_webdataset import TarWriter
from mlscale.data.windows.image_window import encode_window_labels, open_image_window, write_image_window
from mlscale.errors import MLScaleError
from mlscale.task_types.segmentation_type import encode_mask

RANDOM = np.random.default_rng(0)


def make_images(count: int, channels: int = 1) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (count, channels, 6, 6), np.uint8)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shards(folder: Path, members: list[dict[str, bytes]]) -> Path:
    folder.mkdir()
    with (folder / "000.tar").open("wb") as stream, TarWriter(stream) as writer:
        for number, sample in enumerate(members):
            writer.write({"__key__": f"{number:03}", **sample})
    return folder


def write_both(data: ImageData, folder: Path, images: NDArray[Any], labels: list[Any], *, train: int) -> Path:
    data.write_window(folder / "train", list(images[:train]), labels[:train])
    data.write_window(folder / "held_out", list(images[train:]), labels[train:])
    return folder


def read_pixels(data: ImageData, split: str) -> NDArray[Any]:
    decoded = data.get_decoded_split(split)
    return np.stack([decoded.get_sample(row) for row in range(len(decoded))])


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_back_bitwise(tmp_path: Path, channels: int) -> None:
    raw, labels = make_images(25, channels), [str(number % 3) for number in range(25)]
    for name in ("a", "b"):
        write_image_window(tmp_path / name, list(raw), labels, kind="one", is_named=False, shard_size=10)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["000.tar", "001.tar", "002.tar"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    data = WebDataset(train=tmp_path / "a", val=tmp_path / "b")
    assert data.facts().num_classes == 3
    assert np.array_equal(read_pixels(data, "train"), raw)
    assert data.get_decoded_split("train").labels.tolist() == [number % 3 for number in range(25)]


def read_shards(folder: Path) -> dict[str, bytes]:
    members = {}
    for shard in sorted(folder.iterdir()):
        with tarfile.open(shard) as archive:
            for member in archive:
                assert member.mtime == 0
                members[member.name] = archive.extractfile(member).read()  # type: ignore[union-attr]  # a file
    return members


@pytest.mark.parametrize(
    ("shape", "dtype", "extension"),
    [
        ((1, 64, 64), np.uint8, "png"), ((3, 64, 64), np.uint8, "png"), ((2, 64, 64), np.uint8, "npy"),
        ((4, 64, 64), np.uint8, "npy"), ((1, 64, 64), np.float32, "npy"),
    ],
)  # fmt: skip
def test_images_are_files_without_compression(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, extension: str
) -> None:
    images = [np.full(shape, number, dtype) for number in range(3)]
    write_image_window(tmp_path / "w", images, ["a", "b", "a"], kind="one", is_named=True, shard_size=2)
    members = read_shards(tmp_path / "w")
    assert list(members) == [f"{n:06}.{end}" for n in range(3) for end in ("cls", extension)]
    assert len(members[f"000000.{extension}"]) > images[0].nbytes
    assert members["000001.cls"] == b"b"
    assert np.array_equal(read_pixels(WebDataset(train=tmp_path / "w", val=tmp_path / "w"), "train"), images)


@pytest.mark.parametrize(
    ("kind", "is_named", "label", "content", "number"),
    [
        ("one", True, "7", b"7", 1),
        ("one", False, 2, b"2", 2),
        ("several", True, ["B\u00e4r"], '["B\u00e4r"]'.encode(), [0, 0, 1]),
        ("several", False, ["2", "0"], b"[2, 0]", [1, 0, 1]),
        ("mask", True, base64.b64encode(b"a png").decode(), b"a png", None),
    ],
)
def test_labels_are_written_as_shards_have_them(
    tmp_path: Path, kind: str, is_named: bool, label: Any, content: bytes, number: Any
) -> None:
    write_image_window(tmp_path / "w", list(make_images(1)), [label], kind=kind, is_named=is_named)
    assert [content for name, content in read_shards(tmp_path / "w").items() if not name.endswith("0.png")] == [content]
    classes = Classes(3, ("5", "7", "B\u00e4r") if is_named else None, (1, 1, 1))
    source = open_image_window(tmp_path / "w", kind)
    assert encode_window_labels(source, kind, classes).tolist() == ([] if number is None else [number])


def test_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_image_window(tmp_path / "w", [np.array([[[None]]])], ["a"], kind="one", is_named=True)


@pytest.mark.parametrize("names", [("7", "8"), ("B\u00e4r", "Katze")])
def test_a_folder_keeps_its_scale_and_its_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, image in enumerate(make_images(40, 3)):
        path = tmp_path / "photos" / names[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))
    options: dict[str, Any] = {"image_size": 4, "batch_size": 10}
    before = ImageFolder(tmp_path / "photos", **options)
    raw = np.full((5, 3, 4, 4), 250, np.uint8)
    window = write_both(before, tmp_path / "w", raw, [names[1]] * 5, train=3)
    data = ImageFolder(tmp_path / "photos", windows=[str(window)], replay=0.5, epoch_samples=20, **options)
    assert data.encoder() == before.encoder()
    assert data.facts().class_names == names
    assert data.facts().class_counts == tuple(np.add(before.facts().class_counts, [0, 3]))
    assert np.array_equal(read_pixels(data, "val"), raw[3:])
    assert data.get_decoded_split("val").labels.tolist() == [1, 1]
    assert np.array_equal(read_pixels(data, "test"), read_pixels(before, "val"))
    data.setup("fit")
    for batch in data.train_dataloader():
        assert Counter(key.startswith("w/") for key in batch["key"]) == {True: 5, False: 5}
    assert data.encoder().encode_samples(data.read_raw_samples("val", np.arange(2))).tensors["input"].tolist() == (
        raw[3:].tolist()
    )


def test_images_of_several_labels(tmp_path: Path) -> None:
    labels = [["a"], ["b"], ["a", "b"], [], ["b"], ["a"]]
    images = make_images(6)
    members = [
        {"png": encode_png(image), "json": json.dumps(given).encode()}
        for image, given in zip(images, labels, strict=True)
    ]
    folder = write_shards(tmp_path / "shards", members)
    options: dict[str, Any] = {"train": folder, "val": folder, "labels": "several"}
    before = WebDataset(**options)
    window = write_both(before, tmp_path / "w", make_images(3), [["b"], [], ["b", "a"]], train=2)
    data = WebDataset(**options, windows=[str(window)])
    assert data.get_decoded_split("val").labels.tolist() == [[1, 1]]
    assert data.get_decoded_split("train").labels[-2:].tolist() == [[0, 1], [0, 0]]
    assert data.read_members("val", "json") == [b'["b", "a"]']
    assert data.read_members("test", "json")[0] == b'["a"]'
    relabelled = WebDataset(**options, windows=[str(window)], relabelled=["a"])
    assert relabelled.get_decoded_split("train").labels.tolist() == [[0, 1], [0, 0], [0, 1], [0, 1], [0, 0]]
    # Three of six are left out: the share of old images shrinks from 7 to 3.5 against 3 of the window.
    sizes, shares = relabelled._get_source_mix() or (np.zeros(0), np.zeros(0))
    assert (sizes.tolist(), shares.tolist()) == ([3, 2], [27, 23])


def test_the_same_window_is_the_same_data_in_any_folder(tmp_path: Path) -> None:
    images = make_images(6)
    members = [{"png": encode_png(image), "cls": str(number % 2).encode()} for number, image in enumerate(images)]
    folder = write_shards(tmp_path / "shards", members)
    before = WebDataset(train=folder, val=folder)
    windows = [write_both(before, tmp_path / name, images, list("010101"), train=4) for name in ("1se8", "9kz2")]
    windows.append(write_both(before, tmp_path / "other", images, list("011101"), train=4))
    versions = [WebDataset(train=folder, val=folder, windows=[str(window)]).facts().version for window in windows]
    assert versions[0] == versions[1] != versions[2]


def test_images_with_masks(tmp_path: Path) -> None:
    masks = RANDOM.integers(0, 3, (6, 6, 6), np.uint8)
    members = [
        {"png": encode_png(image), "mask.png": encode_mask(mask)}
        for image, mask in zip(make_images(6), masks, strict=True)
    ]
    folder = write_shards(tmp_path / "shards", members)
    options: dict[str, Any] = {"train": folder, "val": folder, "labels": "mask", "classes": ["sky", "sea", "sand"]}
    before = WebDataset(**options)
    new = RANDOM.integers(0, 3, (3, 6, 6), np.uint8)
    labels = [base64.b64encode(encode_mask(mask)).decode() for mask in new]
    window = write_both(before, tmp_path / "w", make_images(3), labels, train=2)
    data = WebDataset(**options, windows=[str(window)], relabelled=["sea"])
    held = data.get_decoded_split("val").masks
    assert held is not None
    assert np.array_equal(held.get_mask(0), new[2])
    trained = data.get_decoded_split("train").masks
    assert trained is not None
    # Pixels of a relabelled class do not count in old masks, and do in those of the window.
    assert np.array_equal(trained.get_mask(0), np.where(masks[0] == 1, 255, masks[0]))
    assert np.array_equal(trained.get_mask(7), new[1])
    assert data.facts().label_digest != before.facts().label_digest


def test_arrays_of_floats(tmp_path: Path) -> None:
    def write_array(array: NDArray[Any]) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()

    arrays = RANDOM.normal(size=(6, 2, 5, 5)).astype(np.float32)
    members = [{"npy": write_array(array), "cls": b"%d" % (number % 2)} for number, array in enumerate(arrays)]
    folder = write_shards(tmp_path / "shards", members)
    before = WebDataset(train=folder, val=folder)
    window = write_both(before, tmp_path / "w", arrays[:4], ["0", "1", "1", "1"], train=2)
    data = WebDataset(train=folder, val=folder, windows=[str(window)])
    assert np.array_equal(read_pixels(data, "val"), arrays[2:4])
    assert data.encoder() == before.encoder()


def test_data_without_a_format_of_its_own_takes_no_windows() -> None:
    class OwnData(OrderedData):
        """A source of a user's own."""

    with pytest.raises(MLScaleError, match="OwnData can't be mixed with windows of production") as caught:
        OwnData(Policy(windows=["w"]), workers=0)
    assert "data=<table|" in caught.value.fix
