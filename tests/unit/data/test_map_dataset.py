"""A user's own datasets, unchanged."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from mlscale.data import DatasetData
from mlscale.errors import MLScaleError


class Noisy(Dataset[Any]):
    """Draws from every global generator."""

    def __init__(self, n: int, *, as_dict: bool = False) -> None:
        self.n, self.as_dict = n, as_dict

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        x = torch.full((3, 4, 5), float(i)) + torch.rand(1) + random.random() + np.random.rand()
        return {"x": x, "y": i % 3, "extra": i} if self.as_dict else (x, i % 3)


def batches(as_dict: bool = False, epochs: int = 2, **choices: Any) -> list[dict[str, Any]]:
    data = DatasetData(Noisy(50, as_dict=as_dict), Noisy(7), batch_size=8, **choices)
    loader = data.train_dataloader()
    return [batch for _ in range(epochs) for batch in loader]


def test_the_same_batches_in_this_process_and_in_others() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    here, there = batches(), batches(workers=2, executor="process")
    assert torch.equal(torch.rand(1), expected), "the training loop's own draws are not disturbed"
    assert len(here) == 12
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a["x"], b["x"])
        assert torch.equal(a["y"], b["y"])
        assert a["key"] == b["key"]
    keys = [key for batch in here[:6] for key in batch["key"]]
    assert len(set(keys)) == 48
    assert keys != [key for batch in here[6:] for key in batch["key"]]


def test_dicts_keep_their_other_entries() -> None:
    for batch in batches(as_dict=True, epochs=1):
        assert [f"train/{i}" for i in batch["extra"].tolist()] == batch["key"]
        assert (batch["extra"] % 3).tolist() == batch["y"].tolist()


@pytest.mark.parametrize("y", [torch.rand(6), torch.rand(6, 1), torch.zeros(6, 2)])
def test_labels_of_another_kind_are_reported(y: Tensor) -> None:
    given = TensorDataset(torch.rand(6, 3), y)
    with pytest.raises(MLScaleError, match="samples are") as caught:
        DatasetData(given, given).facts()
    assert "a LightningDataModule of your own" in caught.value.fix


def test_facts_and_resume() -> None:
    data = DatasetData(Noisy(50), Noisy(7), batch_size=8)
    facts = data.facts()
    assert (facts.num_classes, facts.channels, facts.height, facts.width) == (3, 3, 4, 5)
    assert facts == DatasetData(Noisy(50), Noisy(7)).facts()
    loader = data.train_dataloader()
    whole = list(loader)
    again = DatasetData(Noisy(50), Noisy(7), batch_size=8)
    iterator = iter(again.train_dataloader())
    for _ in range(3):
        next(iterator)
    resumed = DatasetData(Noisy(50), Noisy(7), batch_size=8)
    resumed.load_state_dict(again.state_dict())
    for a, b in zip(whole[3:], resumed.train_dataloader(), strict=True):
        assert torch.equal(a["x"], b["x"])
    assert sum(float(batch["weight"].sum()) for batch in data.val_dataloader()) == 7


def test_labels_are_found_without_asking_for_samples() -> None:
    class Counting(Noisy):
        asked = 0
        targets: list[int]

        def __getitem__(self, i: int) -> Any:
            self.asked += 1
            return super().__getitem__(i)

    dataset = Counting(5000)
    dataset.targets = [i % 3 for i in range(5000)]
    assert DatasetData(Subset(dataset, range(4000)), dataset).facts().class_counts == (1334, 1333, 1333)
    assert dataset.asked < 200


def test_tensors_and_bytes() -> None:
    x, y = torch.full((10, 1, 4, 4), 255, dtype=torch.uint8), torch.arange(10) % 2
    data = DatasetData(TensorDataset(x, y), TensorDataset(x, y), batch_size=10)
    (batch,) = data.train_dataloader()
    assert torch.equal(batch["x"], torch.ones(10, 1, 4, 4))


def test_rows_of_numbers_have_a_shape_too() -> None:
    x, y = torch.rand(10, 13), torch.arange(10) % 2
    facts = DatasetData(TensorDataset(x, y), TensorDataset(x, y)).facts()
    assert (facts.channels, facts.height, facts.width) == (1, 1, 13)


class Returns(Dataset[Any]):
    def __init__(self, sample: Any, n: int = 3) -> None:
        self.sample, self.n = sample, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return self.sample


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        (("a picture", 0), "(str, int)"),
        ({"image": torch.zeros(1), "label": 0}, "a dict of image, label"),
        (torch.zeros(3), "Tensor"),
        ((torch.zeros(3), 0.5), "(Tensor, float)"),
        ((torch.zeros(3), torch.zeros(2)), "(Tensor, Tensor)"),
    ],
)
def test_samples_of_another_kind(sample: Any, kind: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        DatasetData(Returns(sample), Returns(sample)).facts()
    assert kind in caught.value.what
    assert caught.value.where == "data.train"


def test_datasets_that_cannot_be_ordered() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    pair: tuple[Tensor, int] = (torch.zeros(3), 0)
    for dataset, what in [(Returns(pair, 0), "is empty"), (Stream(), "has no length")]:
        with pytest.raises(MLScaleError, match=what):
            DatasetData(dataset, Returns(pair)).facts()
