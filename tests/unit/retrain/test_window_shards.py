"""A window as shards that training reads."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlscale.data import WebDataset
from mlscale.errors import MLScaleError
from mlscale.retrain.window_shards import check_images, read_shards, write_shards, write_shards_without


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_back_to_the_bit(tmp_path: Path, channels: int) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (25, channels, 5, 7), np.uint8)
    labels = [str(number % 3) for number in range(25)]
    write_shards(tmp_path / "a", raw, labels, shard_size=10)
    write_shards(tmp_path / "b", raw, labels, shard_size=10)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["000.tar", "001.tar", "002.tar"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    data = WebDataset(train=tmp_path / "a", val=tmp_path / "b")
    assert data.facts().num_classes == 3
    decoded = data.get_decoded_split("train")
    assert np.array_equal(np.stack([decoded.get_sample(row) for row in range(25)]), raw)
    assert decoded.labels.tolist() == [number % 3 for number in range(25)]
    assert data.list_shard_paths("val") == [str(tmp_path / "b" / name) for name in names]
    with pytest.raises(MLScaleError, match="no test split"):
        data.list_shard_paths("test")


def test_names_and_other_members(tmp_path: Path) -> None:
    raw = np.zeros((2, 1, 2, 2), np.uint8)
    write_shards(tmp_path, raw, ["Katze", "Bär"], label_key="txt")
    assert WebDataset(train=tmp_path, val=tmp_path, label_key="txt").facts().class_names == ("Bär", "Katze")


@pytest.mark.parametrize(
    ("dtype", "shape", "key", "what"),
    [
        ("float32", (1, 8, 8), "cls", "no images"),
        ("uint8", (64,), "cls", "no images"),
        ("uint8", (2, 8, 8), "cls", "no images"),
        ("uint8", (3, 8, 8), "json", r"are \.json members"),
    ],
)
def test_what_can_not_be_written_is_told(dtype: str, shape: tuple[int, ...], key: str, what: str) -> None:
    check_images("uint8", (1, 8, 8), "cls2")
    with pytest.raises(MLScaleError, match=what):
        check_images(dtype, shape, key)


def test_shards_are_read_as_a_client_would_send_them(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (25, 3, 5, 7), np.uint8)
    labels = [str(number % 3) for number in range(25)]
    write_shards(tmp_path, raw, labels, label_key="txt", shard_size=10)
    images, found = read_shards(tmp_path, label_key="txt")
    assert found == labels
    decoded = [np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1) for content in images]
    assert np.array_equal(np.stack(decoded), raw)


@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_shards_without_some_classes(tmp_path: Path, names: list[str] | None) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (25, 1, 5, 7), np.uint8)
    write_shards(tmp_path / "all", raw, [(names or "012")[number % 3] for number in range(25)])
    data = WebDataset(train=tmp_path / "all", val=tmp_path / "all")
    paths = write_shards_without(
        tmp_path / "some", data.get_decoded_split("train"), np.array([1]), names=names, shard_size=10
    )
    assert [Path(path).relative_to(tmp_path / "some").as_posix() for path in paths] == [
        "00000/000.tar",
        "00001/000.tar",
    ]
    left = [number for number in range(25) if number % 3 != 1]
    parts = [read_shards(Path(path).parent) for path in paths]
    assert [label for _, labels in parts for label in labels] == [(names or "012")[number % 3] for number in left]
    decoded = [np.asarray(Image.open(io.BytesIO(content)))[None] for images, _ in parts for content in images]
    assert np.array_equal(np.stack(decoded), raw[left])
