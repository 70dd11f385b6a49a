"""Mixup and cutmix: what they make of images and labels, and that classification trains on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import betaincinv
from torch.nn import functional as F

from mlscale.data import Augment, WebDataset
from mlscale.data.augmentations.mixup import Mixing, compute_beta_quantiles
from mlscale.data.order.batch_plan import BatchLayout
from mlscale.errors import MLScaleError
from mlscale.tasks.classification import Classification
from tests.unit.data.conftest import write_shards

N, CLASSES = 64, 5


def batch() -> dict[str, Any]:
    """Sample i is an image of the constant i, of class i modulo 5."""
    x = torch.arange(N, dtype=torch.float32)[:, None, None, None].repeat(1, 3, 16, 16)
    return {"x": x, "y": torch.arange(N) % CLASSES}


def mixed(mixing: Mixing, epoch: int = 0, start: int = 0) -> dict[str, Any]:
    return mixing(batch(), epoch, np.arange(start, start + N), seed=0, classes=CLASSES)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_quantiles_of_beta(alpha: float) -> None:
    at = np.linspace(0, 1, 501)[:-1]
    assert np.abs(compute_beta_quantiles(at, alpha) - betaincinv(alpha, alpha, at)).max() < 1e-5


@pytest.mark.parametrize("block", [2, 4, 8, 64])
def test_mixup_is_one_share_of_image_and_label(block: int) -> None:
    out = mixed(Mixing(0.4, 0.0, block))
    assert out["y"].dtype == torch.float32
    assert torch.allclose(out["y"].sum(1), torch.ones(N))
    partners = set()
    for i in range(N):
        value = float(out["x"][i].mean())
        assert torch.allclose(out["x"][i], torch.tensor(value), atol=1e-4)
        # y says the share; x = share·i + (1 - share)·partner says who the partner is.
        share = float(out["y"][i, i % CLASSES])
        if 0.02 < share < 0.98:
            partner = round((value - share * i) / (1 - share))
            assert partner // block == i // block
            assert partner != i
            partners.add(partner)
            if partner % CLASSES != i % CLASSES:
                assert float(out["y"][i, partner % CLASSES]) == pytest.approx(1 - share, abs=1e-5)
    assert len(partners) > N // 4


def test_cutmix_pastes_one_box_and_mixes_labels_by_its_area() -> None:
    out, shares = mixed(Mixing(0.0, 1.0, 8)), []
    for i in range(N):
        own = out["x"][i, 0] == i
        others = out["x"][i, 0][~own].unique()
        shares.append(float(own.float().mean()))
        if shares[-1] == 1:
            continue
        assert len(others) == 1
        partner = int(others[0])
        assert partner // 8 == i // 8
        rows, columns = (~own).any(1).nonzero(), (~own).any(0).nonzero()
        assert len(rows) * len(columns) == int((~own).sum())  # the box is whole
        if partner % CLASSES != i % CLASSES:
            assert float(out["y"][i, i % CLASSES]) == pytest.approx(shares[-1], abs=1e-5)
    assert 0.4 < np.mean(shares) < 0.8
    assert np.std(shares) > 0.12


def test_with_both_every_sample_takes_one_or_the_other() -> None:
    out = mixed(Mixing(0.4, 1.0, 8))
    flat = [bool(torch.allclose(x, x.mean(), atol=1e-4)) for x in out["x"]]
    assert 15 < sum(flat) < 55


def test_amounts_change_from_epoch_to_epoch_and_repeat() -> None:
    mixing = Mixing(0.4, 0.0, 8)
    assert torch.equal(mixed(mixing)["x"], mixed(mixing)["x"])
    assert not torch.equal(mixed(mixing)["x"], mixed(mixing, epoch=1)["x"])
    assert not torch.equal(mixed(mixing)["x"], mixed(mixing, start=N)["x"])


def test_shares_are_those_of_beta() -> None:
    """Of Beta(0.2, 0.2), 38 % lie below 0.1 and as many above 0.9; the share of one's own label is at least λ."""
    kept = np.concatenate(
        [mixed(Mixing(0.2, 0.0, 64), epoch)["y"][torch.arange(N), torch.arange(N) % CLASSES] for epoch in range(20)]
    )
    assert abs((kept < 0.1).mean() - 0.38 * 0.8) < 0.05


@pytest.mark.parametrize(
    ("layout", "fix"),
    [
        (BatchLayout(24, 2), "augment.block=6\ndata.batch_size=32"),
        (BatchLayout(60, 1), "augment.block=6\ndata.batch_size=64"),
        (BatchLayout(8, 8), "data.batch_size=64"),
        (BatchLayout(64, 4, 0, 4), "augment.block=4\ndata.batch_size=128"),
    ],
)
def test_a_block_that_does_not_fit(layout: BatchLayout, fix: str) -> None:
    with pytest.raises(MLScaleError, match="blocks of 8 samples do not fit") as caught:
        Mixing(0.2, 0.0, 8).check_blocks(layout)
    assert caught.value.where == "augment.block"
    assert f"{layout.batch_size} samples over {layout.world_size} processes" in caught.value.why
    assert caught.value.fix == fix


@pytest.mark.parametrize("keys", [{"mixup": -1.0}, {"cutmix": 21.0}, {"mixup": 0.2, "block": 1}])
def test_numbers_out_of_range(keys: dict[str, Any]) -> None:
    with pytest.raises(MLScaleError) as caught:
        Augment(**keys)
    assert caught.value.where == f"augment.{list(keys)[-1]}"


def test_evaluation_is_not_mixed_and_classification_trains_on_shares(tmp_path: Path) -> None:
    train, val = write_shards(tmp_path / "t", 48), write_shards(tmp_path / "v", 9)
    data = WebDataset(train, val, batch_size=24, augment=Augment(mixup=0.4, cutmix=1.0))
    assert all(batch["y"].dtype == torch.int64 for batch in data.val_dataloader())
    (first, *_) = list(data.train_dataloader())
    assert first["y"].shape == (24, 3)
    layer = torch.nn.Linear(192, 3)
    model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    task = Classification(3, 0.1, model=model)
    loss = task.training_step(first, 0)
    assert torch.equal(loss, F.cross_entropy(model(first["x"]), first["y"], label_smoothing=0.1))
    weighted = task.training_step({**first, "weight": torch.ones(24)}, 0)
    assert torch.allclose(weighted, loss)
    (gradient,) = torch.autograd.grad(loss, layer.weight)
    assert gradient.abs().sum() > 0
