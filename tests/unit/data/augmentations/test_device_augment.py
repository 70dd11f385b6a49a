"""Augmentation on the device that trains: on a CPU bitwise what the loader does, by the same seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from mlscale.data import Augment, DaliBackend, DatasetData, Loader, RandomCrop, WebDataset
from mlscale.data.augmentations.device_augment import finish_batch, is_unfinished
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import write_masked, write_shards

CHANGES: dict[str, tuple[type, dict[str, Any]]] = {
    "flip": (Augment, {"flip": True}),
    "shift, turn, scale": (Augment, {"shift": 0.1, "rotate": 15, "scale": 0.2, "flip": True}),
    "crop": (RandomCrop, {}),
    "mixup": (Augment, {"flip": True, "mixup": 0.4, "block": 4}),
    "cutmix": (RandomCrop, {"cutmix": 1.0, "block": 4}),
    "both": (Augment, {"shift": 0.1, "mixup": 0.4, "cutmix": 1.0, "block": 4}),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "t", 96, size=(12, 10))
    write_shards(folder / "v", 9, size=(12, 10))
    return folder


class Recorder(pl.LightningModule):
    """Keeps what a training step is given, of two epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[list[str], Tensor, Tensor]] = []

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        assert not is_unfinished(batch)
        self.seen.append((batch["key"], batch["x"].clone(), batch["y"].clone()))
        loss: Tensor = batch["x"].float().mean() * self.weight.sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def build(shards: Path, name: str, device: str, **chosen: Any) -> WebDataset:
    kind, settings = CHANGES[name]
    augment = kind(**settings, device=device)
    options: dict[str, Any] = {"image_size": 8, "batch_size": 16, "workers": 2, "seed": 5, **chosen}
    return WebDataset(str(shards / "t"), str(shards / "v"), augment=augment, **options)


def fit(data: WebDataset, **settings: Any) -> Recorder:
    module = Recorder()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, enable_model_summary=False, **quiet, **settings)
    trainer.fit(module, train_dataloaders=None, datamodule=TrainOnly(data))
    return module


class TrainOnly(pl.LightningDataModule):
    """The data without validation, whose samples are the same either way."""

    def __init__(self, data: WebDataset) -> None:
        super().__init__()
        self.data = data

    def setup(self, stage: str) -> None:
        self.data.trainer = self.trainer
        self.data.setup(stage)

    def train_dataloader(self) -> Any:
        return self.data.train_dataloader()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return self.data.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.data.on_after_batch_transfer(batch, dataloader_idx)


def assert_same(seen: Recorder, expected: Recorder) -> None:
    assert len(seen.seen) == len(expected.seen) == 12
    for (keys, x, y), (other_keys, other_x, other_y) in zip(seen.seen, expected.seen, strict=True):
        assert keys == other_keys
        assert x.dtype == other_x.dtype == torch.float32
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers", "ignore:.*log_every_n_steps")
@pytest.mark.parametrize("name", CHANGES)
def test_a_fit_sees_what_the_loader_would_give(shards: Path, name: str) -> None:
    data = build(shards, name, "model")
    found = fit(data)
    assert_same(found, fit(build(shards, name, "loader")))
    # What is sent to the device are bytes, and not four times as many.
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    batch = next(iter(data.train_dataloader()))
    assert is_unfinished(batch)
    assert batch["x"].dtype == torch.uint8


def test_the_precision_of_the_model(shards: Path) -> None:
    """Lightning converts floats before the transfer, when a batch has none."""
    data = build(shards, "flip", "model")
    data.trainer = pl.Trainer(accelerator="cpu", precision="bf16-true", logger=False, enable_checkpointing=False)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["x"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", CHANGES)
def test_a_loop_without_a_device_gets_finished_batches(shards: Path, name: str) -> None:
    """`Loader`, `mlscale data sample`, probes: as if the loader did it."""
    for one, other in zip(Loader(build(shards, name, "model")), Loader(build(shards, name, "loader")), strict=True):
        assert torch.equal(one["x"], other["x"])
        assert torch.equal(one["y"], other["y"])
    stored = [next(iter(build(shards, name, device).iterate_stored_samples("train"))) for device in ("model", "loader")]
    assert torch.equal(stored[0]["x"], stored[1]["x"])  # type: ignore[index]


@pytest.mark.parametrize("name", ["shift, turn, scale", "crop"])
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    """So another number of ranks or passes gives the same samples."""
    kind, settings = CHANGES[name]
    augment = kind(**settings, device="model")
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 3, 9, 7), dtype=np.uint8))
    seeds = derive_sample_seeds(np.arange(12), seed=1, epoch=0, stream="augment")
    whole = augment.change_tensors(x, seeds)
    for rows in ([3], [11, 0], list(range(5))):
        assert torch.equal(augment.change_tensors(x[rows], seeds[rows]), whole[rows])


def test_where_it_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match=r"augment\.device is 'gpu'") as unknown:
        Augment(device="gpu")
    assert unknown.value.fix == "augment.device=model"
    write_masked(tmp_path, 9)
    augment = Augment(flip=True, device="model")
    with pytest.raises(MLScaleError, match=r"augment\.device=model does not go with this data"):
        WebDataset(str(tmp_path), str(tmp_path), labels="mask", image_key="png", augment=augment)
    with pytest.raises(MLScaleError, match=r"augment\.device=model does not go with this data"):
        DaliBackend(str(shards), str(shards), augment=augment)
    rows = torch.utils.data.TensorDataset(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(MLScaleError, match=r"augment\.device=model does not go with this data"):
        DatasetData(rows, rows, augment=augment)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CHANGES)
def test_on_a_gpu(shards: Path, name: str) -> None:
    """The same values within rounding."""
    data = build(shards, name, "model")
    data.trainer = pl.Trainer(accelerator="gpu", devices=1, logger=False, enable_checkpointing=False)
    expected = list(Loader(build(shards, name, "loader")))
    for batch, other in zip(data.train_dataloader(), expected, strict=True):
        moved = data.transfer_batch_to_device(batch, torch.device("cuda", 0), 0)
        finished = finish_batch(moved)
        assert finished["x"].is_cuda
        torch.testing.assert_close(finished["x"].cpu(), other["x"], atol=1e-3, rtol=0)
        torch.testing.assert_close(finished["y"].cpu(), other["y"], atol=1e-6, rtol=0)
