"""The data sets that come along."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mlscale.data import Digits, FashionMNIST
from mlscale.data.builtin import image_sets as bundled
from mlscale.errors import Exit, MLScaleError


def test_digits() -> None:
    data = Digits()
    data.prepare_data()
    facts = data.facts()
    assert (facts.num_classes, facts.channels, facts.height, facts.width) == (10, 1, 8, 8)
    assert (facts.train_samples, facts.val_samples) == (1437, 360)
    assert facts.version == "512a900ee831b674", "the same shards on every machine"
    counts = torch.bincount(torch.cat([batch["y"] for batch in data.val_dataloader()]))
    assert counts.min() >= 34


def test_a_nearest_neighbour_finds_what_it_should() -> None:
    """98.4 % is what is expected of it, give or take the split."""
    data = Digits(batch_size=1437)
    data.prepare_data()
    (train,) = data.train_dataloader()
    (val,) = data.val_dataloader()
    nearest = torch.cdist(val["x"].flatten(1), train["x"].flatten(1)).argmin(1)
    assert (train["y"][nearest] == val["y"]).float().mean() > 0.98


def test_before_it_is_prepared() -> None:
    with pytest.raises(MLScaleError, match="is not there") as caught:
        Digits().facts()
    assert caught.value.fix == "mlscale prepare data=digits"
    assert caught.value.exit == Exit.ENVIRONMENT


def test_webdataset_itself_reads_the_shards(tmp_path: Path) -> None:
    Digits(root=tmp_path).prepare_data()
    code = (
        "import webdataset as wds, sys\n"
        "rows = list(wds.WebDataset(sys.argv[1], shardshuffle=False).decode('l8').to_tuple('png', 'cls'))\n"
        "assert len(rows) == 360 and rows[0][0].shape == (8, 8) and isinstance(rows[0][1], int)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "digits-1" / "val" / "000.tar")], check=True)


@pytest.mark.slow
def test_two_processes_prepare_at_once(tmp_path: Path) -> None:
    code = "import sys; from mlscale.data import Digits; Digits(root=sys.argv[1]).prepare_data()"
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["digits-1"]
    assert Digits(root=tmp_path).facts().train_samples == 1437


def test_the_loser_of_a_race_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Digits(root=tmp_path), Digits(root=tmp_path)
    load = second._load_samples

    def meanwhile() -> object:
        first.prepare_data()
        return load()

    monkeypatch.setattr(second, "_load_samples", meanwhile)
    second.prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == ["digits-1"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MLScaleError, match="cannot be written") as caught:
        Digits(root=tmp_path / "file").prepare_data()
    assert caught.value.exit == Exit.ENVIRONMENT


def write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def test_fashion_mnist_from_debians_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for prefix, count in (("train", 40), ("t10k", 20)):
        write_idx(source / f"{prefix}-images-idx3-ubyte.gz", np.arange(count * 784).reshape(count, 28, 28) % 256)
        write_idx(source / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    monkeypatch.setattr(bundled, "DEBIAN_FASHION_MNIST", source)
    data = FashionMNIST(batch_size=40)
    data.prepare_data()
    facts = data.facts()
    assert (facts.num_classes, facts.height, facts.train_samples, facts.val_samples) == (10, 28, 40, 20)


def test_fashion_mnist_from_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def no_network(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(bundled, "DEBIAN_FASHION_MNIST", tmp_path / "none")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", no_network)
    with pytest.raises(MLScaleError) as caught:
        FashionMNIST().prepare_data()
    assert caught.value.exit == Exit.ENVIRONMENT
    assert "apt install dataset-fashion-mnist" in caught.value.fix
    assert "mlscale prepare data=fashion_mnist" in caught.value.fix
