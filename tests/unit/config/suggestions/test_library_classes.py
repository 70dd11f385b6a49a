"""Settings of other programs that a class of torch, torchvision or timm has: it is suggested by `_target_`."""

from __future__ import annotations

from functools import cache

import pytest

from mlscale.config.checks.checked_config import collect_names
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.suggestions.config_names import Names
from mlscale.config.suggestions.unknown_keys import suggest_key

V2 = "augment._target_=torchvision.transforms.v2."
EPOCHS = "scheduler=none scheduler.scheduler._target_=torch.optim.lr_scheduler."


@cache
def names(recipe: str) -> Names:
    request = parse_command_line("train", [f"recipe={recipe}"])
    return collect_names(compose_config(request), groups=request.roots.groups)


@pytest.mark.parametrize(
    ("typed", "value", "fix"),
    [
        ("vflip", 0.5, f"{V2}RandomVerticalFlip augment.p=0.5"),
        ("flipud", 0.0, "leave flipud out"),
        ("shear", 2.0, f"{V2}RandomAffine augment.degrees=0 augment.shear=2.0"),
        ("hsv_h", 0.1, f"{V2}ColorJitter augment.hue=0.1"),
        ("auto_augment", "augmix", f"{V2}AugMix"),
        ("reprob", 0.25, f"{V2}RandomErasing augment.p=0.25"),
        ("lr_cycle_mul", 2.0, f"{EPOCHS}CosineAnnealingWarmRestarts scheduler.scheduler._partial_=true "
         "scheduler.scheduler.T_0=10 scheduler.scheduler.T_mult=2 scheduler.interval=epoch"),
        ("decay_milestones", [30, 60], f"{EPOCHS}MultiStepLR scheduler.scheduler._partial_=true "
         "scheduler.scheduler.milestones=[30,60] scheduler.interval=epoch"),
        ("opt", "lamb", "optimizer._target_=timm.optim.Lamb"),
        ("experiment", "my_resnet", "name=my_resnet"),
    ],
)  # fmt: skip
def test_the_class_that_has_the_setting(typed: str, value: object, fix: str) -> None:
    advice = suggest_key(typed, value, names("resnet"))
    assert advice is not None
    assert advice.fix == fix


def test_an_augmentation_of_images_is_not_suggested_for_texts() -> None:
    advice = suggest_key("vflip", 0.5, names("gpt"))
    assert advice is not None
    assert advice.fix == "leave vflip out"
    assert "augment is for images" in advice.why
