"""Random parts: seeded, inside the picture, and with the distribution that torchvision's have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.errors import MLScaleError

SEEDS = derive_sample_seeds(np.arange(4000), seed=0, epoch=0, stream="augment")


def test_boxes_are_those_of_torchvision_in_distribution() -> None:
    from torchvision.transforms import RandomResizedCrop

    crop = RandomCrop()
    ours = np.array([crop.choose_box(draws, 375, 500, (224, 224)) for draws in crop.draw_numbers(SEEDS)], float)
    torch.manual_seed(0)
    image = torch.empty(3, 375, 500)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], float)
    for a, b, spread in zip(ours.T, theirs.T, theirs.std(axis=0), strict=True):
        assert abs(a.mean() - b.mean()) < 4 * spread / np.sqrt(4000) * 1.42
        assert abs(a.std() / spread - 1) < 0.06


@pytest.mark.parametrize("shape", [(375, 500), (3, 400), (400, 3), (1, 1), (7, 5)])
@pytest.mark.parametrize("size", [(224, 224), (6, 10)])
def test_boxes_lie_inside(shape: tuple[int, int], size: tuple[int, int]) -> None:
    crop = RandomCrop()
    for draws in crop.draw_numbers(SEEDS[:500]):
        top, left, height, width = crop.choose_box(draws, *shape, size)
        assert top >= 0
        assert left >= 0
        assert 1 <= height <= shape[0] - top
        assert 1 <= width <= shape[1] - left


def test_a_box_is_a_function_of_its_seed() -> None:
    crop = RandomCrop()
    all_at_once = crop.draw_numbers(SEEDS[:64])
    for number in (0, 5, 63):
        assert np.array_equal(crop.draw_numbers(SEEDS[number : number + 1])[0], all_at_once[number])
    assert crop.choose_box(all_at_once[0], 375, 500, (224, 224)) == (133, 156, 242, 308)
    assert crop.choose_box(all_at_once[1], 375, 500, (224, 224)) == (28, 22, 261, 321)


def test_about_half_are_mirrored() -> None:
    draws = RandomCrop().draw_numbers(SEEDS)
    assert 0.46 < np.mean([RandomCrop().is_mirrored(d) for d in draws]) < 0.54
    assert not any(RandomCrop(flip=False).is_mirrored(d) for d in draws)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_samples_that_are_decoded_already(dtype: torch.dtype) -> None:
    x = torch.randint(0, 256, (16, 3, 12, 9), generator=torch.Generator().manual_seed(0)).to(dtype)
    crop = RandomCrop()
    whole = crop(x, SEEDS[:16])
    assert (whole.shape, whole.dtype) == (x.shape, dtype)
    assert not torch.equal(whole, x)
    assert torch.equal(whole, torch.cat([crop(x[i : i + 5], SEEDS[i : min(i + 5, 16)]) for i in range(0, 16, 5)]))
    same = RandomCrop(area=(1, 1), ratio=(1, 1), flip=False)(x, SEEDS[:16])
    assert torch.equal(same, x)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: RandomCrop(area=(0, 1)), "augment.area"),
        (lambda: RandomCrop(area=(0.5, 0.4)), "augment.area"),
        (lambda: RandomCrop(area=(0.5, 1.1)), "augment.area"),
        (lambda: RandomCrop(area=(0.5,)), "augment.area"),
        (lambda: RandomCrop(ratio=(2, 1)), "augment.ratio"),
        (lambda: RandomCrop(ratio=(0, 1)), "augment.ratio"),
        (lambda: RandomCrop(mixup=-1), "augment.mixup"),
    ],
)
def test_limits_that_are_wrong(make: Callable[[], RandomCrop], where: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        make()
    assert caught.value.where == where
