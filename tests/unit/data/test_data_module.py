"""The data modules under Lightning's trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pytorch_lightning as pl

from mlscale.data import Augment, Promises, WebDataset
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import write_shards


class Recorder(pl.LightningModule):
    """Learns a little, and keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(192, 3)
        self.seen: list[tuple[int, list[str], float]] = []
        self.evaluated: list[tuple[str, float]] = []

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        self.seen.append((self.current_epoch, batch["key"], float(batch["x"].sum())))
        return torch.nn.functional.cross_entropy(self.layer(batch["x"].flatten(1)), batch["y"])

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self.evaluated += zip(batch["key"], batch["weight"].tolist(), strict=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def data(tmp_path: Path) -> WebDataset:
    train, val = write_shards(tmp_path / "t", 50), write_shards(tmp_path / "v", 11)
    return WebDataset(train, val, batch_size=8, augment=Augment(0.1, 5))


def trainer(tmp_path: Path, **kwargs: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=tmp_path, num_sanity_val_steps=0, **{"max_epochs": 2, **quiet, **kwargs})


def fit(data: WebDataset, tmp_path: Path, **kwargs: Any) -> Recorder:
    module = Recorder()
    trainer(tmp_path, enable_checkpointing=False, **kwargs).fit(module, data)
    return module


@pytest.mark.filterwarnings("ignore")
class TestUnderTheTrainer:
    """Lightning's own warnings are its business."""

    def test_epochs(self, data: WebDataset, tmp_path: Path) -> None:
        module = fit(data, tmp_path)
        assert [epoch for epoch, _, _ in module.seen] == [0] * 6 + [1] * 6
        assert len({key for epoch, keys, _ in module.seen for key in keys if epoch == 0}) == 48
        assert len(module.evaluated) == 22
        assert {weight for _, weight in module.evaluated} == {1.0}

    def test_a_second_fit_starts_again(self, data: WebDataset, tmp_path: Path) -> None:
        assert fit(data, tmp_path).seen == fit(data, tmp_path).seen

    def test_accumulation_sees_the_same_global_batches(self, data: WebDataset, tmp_path: Path) -> None:
        whole, halves = fit(data, tmp_path).seen, fit(data, tmp_path, accumulate_grad_batches=2).seen
        joined = [a[1] + b[1] for a, b in zip(halves[::2], halves[1::2], strict=True)]
        assert joined == [keys for _, keys, _ in whole]

    def test_a_class_of_another_name_does_not_start_again_in_a_resume(self, data: WebDataset, tmp_path: Path) -> None:
        (first := trainer(tmp_path, max_steps=4)).fit(Recorder(), data)
        first.save_checkpoint(tmp_path / "saved.ckpt")
        data.__class__ = type("Renamed", (WebDataset,), {})
        with pytest.raises(MLScaleError, match="no position in this data"):
            trainer(tmp_path).fit(Recorder(), data, ckpt_path=tmp_path / "saved.ckpt", weights_only=True)

    @pytest.mark.parametrize("limit", [3, 0.5])
    def test_limited_epochs_move_on(self, data: WebDataset, tmp_path: Path, limit: float) -> None:
        whole = fit(data, tmp_path).seen
        limited = fit(data, tmp_path, limit_train_batches=limit).seen
        assert limited == whole[:3] + whole[6:9]

    def test_overfitting_repeats_one_batch(self, data: WebDataset, tmp_path: Path) -> None:
        seen = fit(data, tmp_path, overfit_batches=1, max_epochs=3).seen
        assert [(keys, total) for _, keys, total in seen] == [seen[0][1:]] * 3

    @pytest.mark.parametrize("every", [2, 5])
    def test_a_checkpoint_goes_on(self, data: WebDataset, tmp_path: Path, every: int) -> None:
        whole = fit(data, tmp_path).seen
        save = pl.callbacks.ModelCheckpoint(tmp_path, filename="c", every_n_train_steps=every, save_top_k=1)
        trainer(tmp_path, callbacks=[save], max_steps=every).fit(Recorder(), data)
        module = Recorder()
        fresh = WebDataset(tmp_path / "t", tmp_path / "v", batch_size=8, augment=Augment(0.1, 5))
        trainer(tmp_path, enable_checkpointing=False).fit(module, fresh, ckpt_path=tmp_path / "c.ckpt")
        assert module.seen == whole[every:]


def test_what_it_promises() -> None:
    assert WebDataset.promises == Promises(order=True, resume=True, elastic=True)


def test_threads_of_torch_stay_as_they_are(data: WebDataset) -> None:
    before = torch.get_num_threads()
    list(data.train_dataloader())
    assert torch.get_num_threads() == before
