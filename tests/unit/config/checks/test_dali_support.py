"""data=dali: what DALI can't do is named before anything runs, and never left out."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torchvision.transforms.v2 as v2
from omegaconf import DictConfig, OmegaConf

from mlscale.cli import main
from mlscale.config.checks import dali_support
from mlscale.config.checks.dali_support import COUNTERPARTS, check_dali_machine
from mlscale.data.dali.recorded_transforms import record_transform
from mlscale.errors import Exit, MLScaleError, Problems
from tests.unit.config.checks.test_check import check

DATA = ("recipe=resnet", "data=dali", "data.train=a", "data.val=b")
NEEDED: dict[str, dict[str, Any]] = {
    "Grayscale": {"num_output_channels": 3}, "RandomAdjustSharpness": {"sharpness_factor": 2},
    "RandomAffine": {"degrees": 5}, "RandomPosterize": {"bits": 3}, "RandomRotation": {"degrees": 5},
    "RandomSolarize": {"threshold": 9}, "ColorJitter": {"brightness": 0.1}, "Compose": {"transforms": [v2.Identity()]},
    "RandomApply": {"transforms": [v2.Identity()]}, "RandomChoice": {"transforms": [v2.Identity()]},
    "RandomOrder": {"transforms": [v2.Identity()]},
}  # fmt: skip


def chain(text: str) -> tuple[str, ...]:
    """The augmentation of this YAML alone: the recipe's is left out."""
    return ("augment=none", f"++augment={text}")


def build(name: str) -> v2.Transform | None:
    """A transform with what it needs; None where more is needed, or it is not for images."""
    try:
        return getattr(v2, name)(**NEEDED.get(name, {}))
    except (TypeError, ValueError, UserWarning):  # a deprecated one warns
        return None


def is_recorded(transform: v2.Transform) -> bool:
    try:
        record_transform(transform, np.arange(40, dtype=np.uint64), (3, 20, 20))
    except Exception:  # an error of torchvision's own, of a transform that is not for images, is one, too
        return False
    return True


def test_the_check_knows_what_can_be_recorded() -> None:
    """Each transform that passes can be recorded, and of torchvision's others none can that changes an image."""
    classes = [name for name, item in vars(v2).items() if inspect.isclass(item) and issubclass(item, v2.Transform)]
    assert set(classes) >= COUNTERPARTS
    for name in COUNTERPARTS:
        transform = build(name)
        assert transform is not None, name
        assert is_recorded(transform), name
    # Images pass through these unchanged: a recipe does not need them.
    unchecked = {"Transform", "ToImage", "PILToTensor", "ClampBoundingBoxes", "ClampKeyPoints"}
    unchecked |= {"ConvertBoundingBoxFormat"}
    others = {name: build(name) for name in set(classes) - COUNTERPARTS - unchecked}
    taken = {name for name, transform in others.items() if transform is not None and is_recorded(transform)}
    assert not {name for name in taken if not name.startswith(("Sanitize", "SetClamping"))}


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (chain("{_target_:torchvision.transforms.v2.GaussianBlur,kernel_size:3}"),
         "torchvision.transforms.v2.GaussianBlur has no counterpart in DALI", "data=webdataset"),
        (chain("{_target_:torchvision.transforms.v2.Compose,transforms:[{_target_:torchvision.transforms.v2.RandomInvert},{_target_:torchvision.transforms.v2.RandomErasing}]}"),
         "torchvision.transforms.v2.RandomErasing has no counterpart in DALI", "data=webdataset"),
        (chain("{_target_:torchvision.transforms.RandomHorizontalFlip}"),
         "torchvision.transforms.RandomHorizontalFlip has no counterpart in DALI",
         "augment._target_=torchvision.transforms.v2.RandomHorizontalFlip"),
        (chain("{_target_:torchvision.transforms.v2.RandomResizedCrop,size:32}"),
         "torchvision.transforms.v2.RandomResizedCrop has no counterpart in DALI", "augment=crop"),
        (chain("{_target_:torchvision.transforms.v2.ColorJitter,hue:0.1}"),
         "augment.hue=0.1 has no counterpart in DALI", "leave augment.hue out"),
        (chain("{_target_:torchvision.transforms.v2.RandomRotation,degrees:5,expand:true}"),
         "augment.expand=True has no counterpart in DALI", "leave augment.expand out"),
        (("data.device=cuda",), "'data.device' must be cpu or gpu, not the text 'cuda'", ""),
        (("data.labels=mask",), "'data.labels' must be one or several, not the text 'mask'", ""),
    ],
    ids=lambda value: value[0][:60] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_dali_lacks_is_named(words: tuple[str, ...], what: str, fix: str) -> None:
    (problem,) = check(*DATA, *words)
    assert problem.what == what
    assert problem.fix.startswith(fix)


@pytest.mark.parametrize(
    "augment",
    [
        "augment=none", "augment=crop", "augment=mixup", "augment=shift",
        *chain("{_target_:torchvision.transforms.v2.RandAugment,num_ops:3,interpolation:bilinear}")[1:],
        *chain("{_target_:torchvision.transforms.v2.ColorJitter,brightness:0.4,hue:0}")[1:],
    ],
)  # fmt: skip
def test_what_dali_has_passes(augment: str) -> None:
    assert not check(*DATA, *(["augment=none"] if "{" in augment else []), augment)


def test_other_data_takes_any_transform() -> None:
    assert not check("recipe=resnet", *chain("{_target_:torchvision.transforms.v2.GaussianBlur,kernel_size:3}"))


def test_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def config(device: str, accelerator: str = "auto", target: str = "mlscale.data.Dali") -> DictConfig:
        data = {"_target_": target, "device": device}
        return OmegaConf.create({"data": data, "trainer": {"accelerator": accelerator}})

    monkeypatch.setattr(dali_support, "find_spec", lambda name: object())
    check_dali_machine(config("cpu"), has_cuda=False)
    check_dali_machine(config("gpu"), has_cuda=True)
    with pytest.raises(MLScaleError, match=r"data\.device=gpu needs a CUDA device that trains") as no_device:
        check_dali_machine(config("gpu"), has_cuda=False)
    assert no_device.value.exit == Exit.ENVIRONMENT
    with pytest.raises(MLScaleError) as not_chosen:
        check_dali_machine(config("gpu", "cpu"), has_cuda=True)
    assert (not_chosen.value.why, not_chosen.value.exit) == ("trainer.accelerator=cpu", Exit.USER)
    monkeypatch.setattr(dali_support, "find_spec", lambda name: None)
    check_dali_machine(config("gpu", target="mlscale.data.WebDataset"), has_cuda=False)
    with pytest.raises(Problems) as both:
        check_dali_machine(config("gpu"), has_cuda=False)
    assert len(both.value.problems) == 2
    assert both.value.exit == Exit.ENVIRONMENT


def test_without_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: object
) -> None:
    """Exit code 5 and the line to install it, before the data is looked for."""
    monkeypatch.setattr(dali_support, "find_spec", lambda name: None)
    assert main(["train", *DATA, "snapshot=false"]) == 5
    error = capsys.readouterr().err
    assert "the package nvidia-dali-cuda120 is not installed" in error
    assert "pip install 'mlscale[dali]'" in error
