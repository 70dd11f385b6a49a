"""Fixes that type a class over a group's own, next to others of the same group: one class is built of them."""

from __future__ import annotations

import shlex

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.errors import MLScaleError, Problems

V2 = "torchvision.transforms.v2."
EPOCHS = "scheduler=none scheduler.scheduler._target_=torch.optim.lr_scheduler."


def problems(typed: str) -> list[MLScaleError]:
    try:
        request = parse_command_line("train", shlex.split(typed))
    except Problems as error:
        return list(error.problems)
    origin = create_origin_lookup(request.command, list(request.overrides), request.roots)
    return check_config(compose_config(request), groups=request.roots.groups, origin=origin)


@pytest.mark.parametrize(
    ("typed", "fixes"),
    [
        (
            "vflip=0.5 perspective=0.2",
            [
                f"augment._target_={V2}Compose 'augment.transforms=[{{_target_:{V2}RandomVerticalFlip,p:0.5}},"
                f"{{_target_:{V2}RandomPerspective,distortion_scale:0.2}}]'"
            ]
            * 2,
        ),
        ("hsv_h=0.1 hsv_s=0.3", [f"augment._target_={V2}ColorJitter augment.hue=0.1 augment.saturation=0.3"] * 2),
        (
            "hsv_h=0.1 vflip=0.4 hsv_s=0.3 mixup=0.2",
            [
                f"augment._target_={V2}Compose "
                f"'augment.transforms=[{{_target_:{V2}ColorJitter,hue:0.1,saturation:0.3}},"
                f"{{_target_:{V2}RandomVerticalFlip,p:0.4}}]'"
            ]
            * 3
            + ["leave mixup out"],
        ),
        ("--vflip 0.5 --mixup 0.2", [f"augment._target_={V2}RandomVerticalFlip augment.p=0.5", "leave mixup out"]),
        (
            "opt=adafactor adam_epsilon=1e-7",
            ["optimizer._target_=torch.optim.Adafactor scheduler.cycle_momentum=false", "leave adam_epsilon out"],
        ),
        ("opt=radam adam_epsilon=1e-7", ["optimizer._target_=torch.optim.RAdam", "optimizer.eps=1e-07"]),
        (
            "lr_cycle_mul=2 scheduler.warmup=2",
            [
                "leave scheduler.warmup out",
                "scheduler=none scheduler.scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingWarmRestarts "
                "scheduler.scheduler._partial_=true scheduler.scheduler.T_0=10 scheduler.scheduler.T_mult=2 "
                "scheduler.interval=epoch",
            ],
        ),
        (
            "--sched step --decay-epochs 20 --decay-rate 0.5",
            [
                f"{EPOCHS}StepLR scheduler.scheduler._partial_=true scheduler.scheduler.step_size=20 "
                "scheduler.scheduler.gamma=0.5 scheduler.interval=epoch"
            ]
            * 3,
        ),
        (
            "milestones=[20,40] lr_decay=0.5",
            [
                f"{EPOCHS}MultiStepLR scheduler.scheduler._partial_=true scheduler.scheduler.milestones=[20,40] "
                "scheduler.scheduler.gamma=0.5 scheduler.interval=epoch"
            ]
            * 2,
        ),
        # Which optimizer is meant is not known.
        ("opt=radam optim=nadam", ["optimizer._target_=torch.optim.RAdam", "optimizer._target_=torch.optim.NAdam"]),
    ],
)
def test_the_fixes_suit_the_class(typed: str, fixes: list[str]) -> None:
    assert [problem.fix for problem in problems(f"recipe=resnet {typed}")] == fixes
    kept = [fix for fix in dict.fromkeys(fixes) if not fix.startswith("leave ")]
    if "optim=" not in typed:
        assert problems(f"recipe=resnet {' '.join(kept)}") == []


def test_an_optimizer_with_other_betas_brings_its_own() -> None:
    pytest.importorskip("timm")
    (problem,) = problems("recipe=gpt opt=adan")
    assert problem.fix == "optimizer._target_=timm.optim.Adan optimizer.betas=[0.98,0.92,0.99]"
    assert problems(f"recipe=gpt {problem.fix}") == []
