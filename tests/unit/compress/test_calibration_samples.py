"""Calibration sees real training samples, raw, the same ones every time, and disturbs nobody."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from mlscale.compress.quantize import read_calibration_samples
from mlscale.data import BreastCancer, Digits, TextFiles
from mlscale.errors import MLScaleError


def test_images_are_raw_and_evenly_spread_over_the_training_split(digits: Digits) -> None:
    (raw,), train = read_calibration_samples(digits, 7).values(), digits.get_decoded_split("train")
    assert raw.dtype == np.uint8
    assert raw.shape == (7, 1, 8, 8)
    rows = [0, 239, 478, 718, 957, 1196, 1436]
    assert (raw == np.stack([train.get_sample(row) for row in rows])).all()
    assert len(read_calibration_samples(digits, 5000)["input"]) == len(train)


class Shuffled(LightningDataModule):
    """Sixty samples, each its own number, in batches of 8."""

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        x = torch.arange(60.0)[:, None]
        return DataLoader(TensorDataset(x, torch.zeros(60, dtype=torch.long)), batch_size=8, shuffle=True)


def test_anybodys_own_loader_gives_the_same_samples_twice_and_draws_from_no_generator_of_the_run() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    first = read_calibration_samples(Shuffled(), 20)["input"]
    assert first.dtype == np.float32
    assert len(np.unique(first)) == 20
    torch.rand(3)
    torch.set_rng_state(states[0])
    assert (read_calibration_samples(Shuffled(), 20)["input"] == first).all()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert random.getstate() == states[2]


def test_rows_of_a_table_are_as_the_model_takes_them() -> None:
    data = BreastCancer(batch_size=16)
    data.prepare_data()
    data.setup("fit")
    train = data.get_rows("train")
    rows = np.linspace(0, len(train) - 1, 9).astype(np.int64)
    (x,) = read_calibration_samples(data, 9).values()
    assert x.dtype == np.float32
    assert (x == train.take_samples(rows)[0]).all()
    assert (x == data.encoder().encode_samples(data.read_raw_samples("train", rows) or []).tensors["input"]).all()


def test_blocks_of_text_are_two_tensors(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_bytes(bytes(range(1, 200)) * 2)
    data = TextFiles(str(tmp_path / "train.txt"), str(tmp_path / "val.txt"), length=16, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    samples = read_calibration_samples(data, 3)
    assert {name: rows.shape for name, rows in samples.items()} == {"input": (3, 17), "scored": (3, 2)}
    assert samples["input"][0].tolist() == list(range(1, 18))
    assert samples["scored"].tolist() == [[0, 16]] * 3


class Pairs(LightningDataModule):
    """Two inputs by name."""

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        samples = [({"left": torch.full((2,), float(i)), "right": torch.tensor([i])}, i % 2) for i in range(12)]
        return DataLoader(samples, batch_size=5)  # type: ignore[arg-type]


def test_several_inputs_are_by_name() -> None:
    samples = read_calibration_samples(Pairs(), 7)
    assert {name: rows.shape for name, rows in samples.items()} == {"left": (7, 2), "right": (7, 1)}
    assert samples["right"][:, 0].tolist() == samples["left"][:, 1].tolist() == list(range(7))


def test_no_samples_is_an_error() -> None:
    class Empty(Shuffled):
        def train_dataloader(self) -> list[object]:  # type: ignore[override]
            return [[]]

    with pytest.raises(MLScaleError, match="no training samples found"):
        read_calibration_samples(Empty(), 20)
