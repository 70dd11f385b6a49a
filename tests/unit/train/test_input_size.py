"""An image that is too small for a model is no bug: the size that it takes is found by trying."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlscale.errors import Exit, MLScaleError
from mlscale.tasks import Classification
from mlscale.train.input_size import explain_unsuited_input
from tests.unit.fitting import SGD


def deep() -> nn.Module:
    """Pools 5 times: 32 pixels at least."""
    layers = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2)) for _ in range(5)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


class Fixed(nn.Module):
    """One size alone, as a vision transformer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.net = size, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        assert x.shape[-1] == self.size, f"input {x.shape[-1]} doesn't match model {self.size}"
        return self.net(x.mean((2, 3)))


def normalised() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))


def reported(model: nn.Module, height: int, width: int, batch: int = 4, ranks: int = 1) -> MLScaleError | None:
    data = SimpleNamespace(facts=lambda: SimpleNamespace(channels=3, height=height, width=width))
    try:
        model.train()(torch.zeros(batch, 3, height, width))
    except Exception as error:
        failed: Exception = error
    else:
        failed = RuntimeError("raised by something else")
    task = Classification(2, model=model, optimizer=SGD)
    return explain_unsuited_input(failed, task, data, per_device_batch=batch, ranks=ranks)


@pytest.mark.parametrize(
    ("model", "size", "fix"),
    [(deep(), (16, 16), 32), (deep(), (8, 40), 48), (Fixed(224), (16, 16), 224), (Fixed(64), (100, 100), 64)],
)
def test_the_size_that_the_model_takes_is_the_fix(model: nn.Module, size: tuple[int, int], fix: int) -> None:
    error = reported(model, *size)
    assert error is not None
    assert error.what == f"{type(model).__name__} can't take images of {size[0]}×{size[1]} pixels"
    assert error.fix == f"data.image_size={fix}"
    assert error.exit is Exit.USER
    assert reported(model, fix, fix) is None


def vit(size: int) -> nn.Module:
    timm = pytest.importorskip("timm")
    settings = {"patch_size": 14, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 2}
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", img_size=size, **settings)
    return model


@pytest.mark.parametrize(
    ("built", "given", "fix"),
    [
        (518, 56, ["data.image_size=518", "model.img_size=56"]),
        (28, 50, ["data.image_size=28", "data.image_size=42 model.img_size=42"]),
        (28, 8, ["data.image_size=28", "data.image_size=14 model.img_size=14"]),
        (8, 8, ["data.image_size=14 model.img_size=14"]),  # smaller than a patch: it takes no image at all
    ],
)
def test_a_vision_transformer_can_be_built_for_whole_patches(built: int, given: int, fix: list[str]) -> None:
    error = reported(vit(built), given, given)
    assert error is not None
    assert [line.partition(",")[0] for line in error.fix.splitlines()] == fix
    size = int(fix[-1].rpartition("=")[2])
    assert reported(vit(size), size, size) is None


def test_one_image_at_a_time() -> None:
    error = reported(normalised(), 16, 16, batch=1, ranks=4)
    assert error is not None
    assert error.fix == "data.batch_size=8"
    assert reported(normalised(), 16, 16, batch=2) is None


def test_other_errors_are_left_alone() -> None:
    assert reported(deep(), 64, 64) is None
    nothing = nn.Module()  # fails at every size
    assert reported(nothing, 64, 64) is None
    task = Classification(2, model=deep(), optimizer=SGD)
    image = SimpleNamespace(facts=lambda: SimpleNamespace(channels=3, height=8, width=8))
    table = SimpleNamespace(facts=lambda: SimpleNamespace(channels=None, height=None, width=None))
    settings: dict[str, Any] = {"per_device_batch": 4, "ranks": 1}
    assert explain_unsuited_input(RuntimeError(), task, table, **settings) is None
    assert explain_unsuited_input(RuntimeError(), task, object(), **settings) is None
    assert explain_unsuited_input(torch.OutOfMemoryError(), task, image, **settings) is None
    assert explain_unsuited_input(KeyError(), task, image, **settings) is None
