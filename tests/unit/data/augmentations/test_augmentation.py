"""Augmentation repeats to the bit, however a batch is split, and does what it says."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mlscale.data.augmentations.augmentation import Augment, PerSampleAugment
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.errors import MLScaleError

SEEDS = derive_sample_seeds(np.arange(64), seed=0, epoch=0, stream="augment")


def images(n: int = 64, height: int = 11, width: int = 9) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("augment", [Augment(0.1, 10, 0.1), Augment(0.1, flip=True), Augment(flip=True)])
@pytest.mark.parametrize("part", [1, 2, 8, 24, 63])
def test_a_split_batch_is_the_same_to_the_bit(augment: Augment, part: int) -> None:
    x = images()
    whole = augment(x, SEEDS)
    parts = [augment(x[i : i + part], SEEDS[i : i + part]) for i in range(0, 64, part)]
    assert torch.equal(whole, torch.cat(parts))


def test_nothing_asked_nothing_done() -> None:
    assert torch.equal(Augment()(images(), SEEDS), images().float())


def test_flip_mirrors_about_half() -> None:
    x = images()
    y = Augment(flip=True)(x, SEEDS)
    mirrored = [torch.equal(b, a.flip(-1).float()) for a, b in zip(x, y, strict=True)]
    kept = [torch.equal(b, a.float()) for a, b in zip(x, y, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 20 < sum(mirrored) < 44


def test_flip_and_shift_together_mirror_the_same_samples() -> None:
    x = images()
    assert torch.allclose(Augment(1e-9, flip=True)(x, SEEDS), Augment(flip=True)(x, SEEDS), atol=0.01)


def test_a_turn_keeps_the_shape_of_what_it_turns() -> None:
    """A disc in an image that is not square stays a disc, of its size, in the middle."""
    v, u = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(80.0) - 39.5, indexing="ij")
    disc = ((u**2 + v**2) < 100).float()[None, None].repeat(64, 1, 1, 1)
    turned = Augment(rotate=90)(disc, SEEDS)
    assert (turned - disc).abs().mean() < 0.01


def test_a_shift_stays_within_its_limit_and_fills_with_black() -> None:
    x = torch.zeros(64, 1, 40, 40)
    x[:, :, 20, 20] = 100
    y = Augment(shift=0.1)(x, SEEDS)
    grid = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij"), -1)
    weights = y.flatten(1) / y.flatten(1).sum(1, keepdim=True)
    moved = weights @ grid.view(-1, 2) - 20
    assert moved.abs().max() <= 4.01
    assert moved.abs().max() > 3
    assert Augment(shift=1.0)(torch.ones(64, 1, 8, 8), SEEDS).min() == 0


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Augment(shift=-1), "augment.shift"),
        (lambda: Augment(rotate=400), "augment.rotate"),
        (lambda: Augment(scale=1), "augment.scale"),
    ],
)
def test_amounts_out_of_range(make: Callable[[], Augment], where: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        make()
    assert caught.value.where == where


def test_a_users_transform_repeats_and_leaves_the_generators_alone() -> None:
    def noise(x: Tensor) -> Tensor:
        return (x + torch.randint(0, 9, x.shape) + random.randint(0, 9) + np.random.randint(0, 9)).to(torch.uint8)

    augment, x = PerSampleAugment(noise), images()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    first = augment(x, SEEDS)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected
    assert torch.equal(first, torch.cat([augment(x[:5], SEEDS[:5]), augment(x[5:], SEEDS[5:])]))
    assert not torch.equal(first, x)


def test_torchvisions_transforms_are_taken() -> None:
    from torchvision.transforms import v2

    y = PerSampleAugment(v2.RandomResizedCrop(6, antialias=True))(images(), SEEDS)
    assert y.shape == (64, 3, 6, 6)
    assert y.dtype == torch.uint8


def test_a_transform_that_changes_the_dtype_is_reported() -> None:
    with pytest.raises(MLScaleError, match=r"returned a tensor of torch\.float32"):
        PerSampleAugment(lambda x: x.float())(images(), SEEDS)
