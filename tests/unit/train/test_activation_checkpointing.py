"""Activations that are computed again: the same bits, the same names, less memory."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlscale.errors import MLScaleError
from mlscale.tasks.models.gpt import GPT
from mlscale.tasks.models.resnet import ResNet
from mlscale.train.strategies.wrapping import RecomputedForward, checkpoint_activations


def gpt(dropout: float = 0.2) -> GPT:
    torch.manual_seed(0)
    return GPT(vocab_size=16, length=8, width=16, layers=4, heads=2, dropout=dropout)


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss, the gradients, and the bytes that were kept for the backward pass."""
    torch.manual_seed(1)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x).square().mean()
    size = sum(kept.values())
    loss.backward()
    return loss.detach(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}, size


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("plain", "x"),
    [(gpt(), torch.arange(32).reshape(4, 8) % 16), (ResNet(1, 2, widths=[4, 4, 4], blocks=2), images())],
    ids=["dropout", "batchnorm"],
)
def test_the_bits_are_the_same(plain: nn.Module, x: Tensor) -> None:
    again = copy.deepcopy(plain)
    blocks = checkpoint_activations(again)
    assert len(blocks) > 3
    for _ in range(2):
        (loss, grads, size), (other, others, less) = step(plain, x), step(again, x)
        assert torch.equal(loss, other)
        assert list(grads) == list(others)
        assert all(torch.equal(grads[name], others[name]) for name in grads)
        assert less < 0.5 * size
    state, same = plain.state_dict(), again.state_dict()
    assert list(state) == list(same)  # names
    assert all(torch.equal(state[name], same[name]) for name in state)  # BatchNorm has counted each batch once


def test_a_copy_computes_with_its_own_weights() -> None:
    model = gpt(dropout=0.0)
    checkpoint_activations(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in other.blocks.parameters():
            value.zero_()
    x = torch.arange(8)[None] % 16
    assert not torch.equal(model(x), other(x))
    assert isinstance(other.blocks[0].forward, RecomputedForward)
    checkpoint_activations(other)  # a second time: nothing is nested
    assert not isinstance(other.blocks[0].forward._own, RecomputedForward)


def test_without_gradients_nothing_is_computed_twice(monkeypatch: Any) -> None:
    model = gpt().eval()
    checkpoint_activations(model)
    monkeypatch.setattr("mlscale.train.strategies.wrapping.checkpoint", None)  # a call would fail
    with torch.no_grad():
        model(torch.arange(8)[None] % 16)


def test_the_outermost_of_nested_classes_is_chosen() -> None:
    assert list(checkpoint_activations(gpt(), ["GPTBlock", "CausalAttention"])) == [f"blocks.{n}" for n in range(4)]


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(MLScaleError, match="no repeated blocks") as caught:
        checkpoint_activations(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert "activation_checkpointing=false" in caught.value.fix
    with pytest.raises(MLScaleError, match="no module of class Blok") as caught:
        checkpoint_activations(gpt(), ["Blok"])
    assert "activation_checkpointing=true" in caught.value.fix
