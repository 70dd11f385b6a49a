"""Calibration sees real training samples, raw, the same ones every time, and disturbs nobody."""

import random

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from mlscale.compress.calibration_samples import read_calibration_samples
from mlscale.data import Digits
from mlscale.errors import MLScaleError


def test_images_are_raw_and_evenly_spread_over_the_training_split(digits: Digits) -> None:
    raw, train = read_calibration_samples(digits, 7), digits.get_decoded_split("train")
    assert raw.dtype == np.uint8
    assert raw.shape == (7, 1, 8, 8)
    rows = [0, 239, 478, 718, 957, 1196, 1436]
    assert (raw == np.stack([train.get_sample(row) for row in rows])).all()
    assert len(read_calibration_samples(digits, 5000)) == len(train)


class Shuffled(LightningDataModule):
    """Sixty samples, each its own number, in batches of 8."""

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        x = torch.arange(60.0)[:, None]
        return DataLoader(TensorDataset(x, torch.zeros(60, dtype=torch.long)), batch_size=8, shuffle=True)


def test_anybodys_own_loader_gives_the_same_samples_twice_and_draws_from_no_generator_of_the_run() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    first = read_calibration_samples(Shuffled(), 20)
    assert first.dtype == np.float32
    assert len(np.unique(first)) == 20
    torch.rand(3)
    torch.set_rng_state(states[0])
    assert (read_calibration_samples(Shuffled(), 20) == first).all()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert random.getstate() == states[2]


def test_no_samples_is_an_error() -> None:
    class Empty(Shuffled):
        def train_dataloader(self) -> list[object]:  # type: ignore[override]
            return [[]]

    with pytest.raises(MLScaleError, match="no training samples found"):
        read_calibration_samples(Empty(), 20)
