"""An image that is too small for a model is no bug: the model itself says so."""

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


def reported(model: nn.Module, height: int, width: int) -> MLScaleError | None:
    data = SimpleNamespace(facts=lambda: SimpleNamespace(channels=3, height=height, width=width))
    try:
        model.train()(torch.zeros(4, 3, height, width))
    except Exception as error:
        failed: Exception = error
    else:
        failed = RuntimeError("raised by something else")
    task = Classification(2, model=model, optimizer=SGD)
    return explain_unsuited_input(failed, task, data)


@pytest.mark.parametrize(("model", "size"), [(deep(), (16, 16)), (deep(), (8, 40)), (Fixed(224), (16, 16))])
def test_a_size_that_the_model_does_not_take_is_named(model: nn.Module, size: tuple[int, int]) -> None:
    error = reported(model, *size)
    assert error is not None
    assert error.what == f"{type(model).__name__} can't take images of {size[0]}×{size[1]} pixels"
    assert error.fix == "data.image_size=<one that it takes, such as 224>"
    assert error.exit is Exit.USER
    assert reported(model, 224, 224) is None


def vit(size: int) -> nn.Module:
    timm = pytest.importorskip("timm")
    settings = {"patch_size": 14, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 2}
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", img_size=size, **settings)
    return model


def test_a_vision_transformer_names_its_own_size() -> None:
    error = reported(vit(28), 50, 50)
    assert error is not None
    assert error.fix == "data.image_size=28"
    assert reported(vit(28), 28, 28) is None


def test_other_errors_are_left_alone() -> None:
    assert reported(deep(), 64, 64) is None
    nothing = nn.Module()  # fails at every size
    assert reported(nothing, 64, 64) is None
    task = Classification(2, model=deep(), optimizer=SGD)
    image = SimpleNamespace(facts=lambda: SimpleNamespace(channels=3, height=8, width=8))
    table = SimpleNamespace(facts=lambda: SimpleNamespace(channels=None, height=None, width=None))
    assert explain_unsuited_input(RuntimeError(), task, table) is None
    assert explain_unsuited_input(RuntimeError(), task, object()) is None
    assert explain_unsuited_input(torch.OutOfMemoryError(), task, image) is None
    assert explain_unsuited_input(KeyError(), task, image) is None
