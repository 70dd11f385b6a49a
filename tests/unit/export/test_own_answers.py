"""A model whose answer is not the sample's own is refused, with the line that makes it so."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlscale.errors import MLScaleError
from mlscale.export.own_answers import check_own_answers
from tests.unit.export.conftest import build_module


class Centred(nn.Module):
    """Subtracts the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).flatten(1)


class Ranked(nn.Module):
    """Knows the first sample of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * (1 + x[:1])).flatten(1)


def build_unknowing_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False))


def build_training_norm() -> nn.Module:
    class Training(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> "Training":
            return super().train(True)

    return nn.Sequential(Training(1), nn.Flatten())


class Scaled(nn.Module):
    """Divides by the largest value of the batch, which is that of every sample here."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / x.amax()).flatten(1).float()


class Lowered(nn.Module):
    """Subtracts the smallest value of the batch, which is that of every sample here."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.amin()).flatten(1).float()


class Limited(nn.Module):
    """Divides by the largest value of the batch where that is far out."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / x.abs().amax().clamp(min=99_999)).flatten(1).float()


@pytest.mark.parametrize(
    ("dtype", "model"),
    [(np.float32, Scaled), (np.uint8, Scaled), (np.float32, Lowered), (np.uint8, Lowered), (np.float32, Limited)],
)
def test_samples_that_are_alike_do_not_hide_what_mixes_a_batch(dtype: type, model: Callable[[], nn.Module]) -> None:
    x: Any = np.stack([np.roll(np.asarray([255, 0, 9, 99], dtype), turn).reshape(1, 2, 2) for turn in range(4)])
    with pytest.raises(MLScaleError, match="depends on the other samples of its batch") as caught:
        check_own_answers(build_module(model(), (1, 2, 2), dtype.__name__), {"input": x}, 1e-4)
    place, _, line = caught.value.where.partition(", in forward: ")
    assert re.fullmatch(r".*test_own_answers\.py:\d+", place)
    assert line in inspect.getsource(model)


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (Centred, "requests"),
        (Ranked, "requests"),
        (build_unknowing_norm, "requests; 1 normalises by the batch, without running statistics"),
        (build_training_norm, "requests; 0 normalises by the batch, without running statistics"),
    ],
)
@pytest.mark.parametrize("count", [1, 5])
def test_a_model_that_mixes_the_samples_of_a_batch_is_refused(
    model: Callable[[], nn.Module], cause: str, count: int
) -> None:
    x = np.random.default_rng(0).normal(size=(count, 1, 2, 2)).astype(np.float32)
    with pytest.raises(MLScaleError, match="depends on the other samples of its batch") as caught:
        check_own_answers(build_module(model(), (1, 2, 2)), {"input": x}, 1e-4)
    assert caught.value.why.endswith(cause)
    check_own_answers(build_module(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten()), (1, 2, 2)), {"input": x}, 1e-4)


class Dropping(nn.Module):
    """Drops at random when it predicts, too."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True).flatten(1)


class Noisy(nn.Module):
    """Adds noise."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.rand_like(x)).flatten(1)


class Counting(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.flatten(1) * self.calls


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (Dropping, "dropout(x, 0.5, training=True)"),
        (Noisy, "torch.rand_like(x)"),
        (Counting, "x.flatten(1) * self.calls"),
    ],
)
def test_a_random_forward_is_refused_as_such(model: Callable[[], nn.Module], line: str) -> None:
    with pytest.raises(MLScaleError, match="the same samples get other outputs a second time") as caught:
        check_own_answers(build_module(model(), (1, 2, 2)), {"input": np.ones((5, 1, 2, 2), np.float32)}, 1e-4)
    assert line in caught.value.where


class Squeezing(nn.Module):
    """Loses the dimension of a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).squeeze().sum(1, keepdim=True)


def test_a_forward_that_does_not_take_one_sample_is_refused() -> None:
    x = np.ones((3, 1, 2, 2), np.float32)
    with pytest.raises(MLScaleError, match="forward does not take a batch of one sample") as caught:
        check_own_answers(build_module(Squeezing(), (1, 2, 2)), {"input": x}, 1e-4)
    assert "squeeze()" in caught.value.where


def test_complex_inputs_are_refused() -> None:
    with pytest.raises(MLScaleError, match="forward takes complex numbers"):
        check_own_answers(build_module(nn.Flatten(), (2,), "complex64"), {"input": np.ones((3, 2), np.complex64)}, 1e-4)


class Deciding(nn.Module):
    """Decides by all samples together."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x.flatten(1)
        return -2 * x.flatten(1)


class Positioned(nn.Module):
    """Adds positions along the batch."""

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(len(x)).float()
        return x.flatten(1) + places[:, None]


class Lonely(nn.Module):
    """Treats a single sample otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1)
        if len(x) == 1:
            y = y * 2
        return y


class Large(nn.Module):
    """Treats large batches otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1)
        if len(x) > 4:
            y = y * 3
        return y + 1


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (Deciding, "if x.sum() > 0:"),
        (Positioned, "torch.arange(len(x))"),
        (Large, "y = y * 3"),
        (Lonely, "y = y * 2"),
    ],
)
def test_what_depends_on_the_batch_is_named_by_its_line(model: Callable[[], nn.Module], line: str) -> None:
    x = np.random.default_rng(0).normal(size=(5, 1, 2, 2)).astype(np.float32)
    with pytest.raises(MLScaleError, match="depends on the other samples of its batch") as caught:
        check_own_answers(build_module(model(), (1, 2, 2)), {"input": x}, 1e-4)
    assert line in caught.value.where
