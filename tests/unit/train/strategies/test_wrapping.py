"""The choice of the modules that are sharded or computed again one at a time."""

import pytest
from torch import nn

from mlscale.errors import MLScaleError
from mlscale.tasks.models.gpt import GPT
from mlscale.tasks.models.mlp import MLP
from mlscale.tasks.models.resnet import ResNet
from mlscale.tasks.models.vit import ViT
from mlscale.train.strategies.wrapping import choose_blocks, choose_modules, count_classes


class Tied(nn.Module):
    """Two large matrices that are one, and a third one."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.middle, self.write = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.write.weight = self.read.weight


def test_repeated_blocks_are_chosen() -> None:
    gpt = choose_modules(GPT(vocab_size=16, length=8, width=8, layers=3, heads=2))
    assert list(gpt) == ["blocks.0", "blocks.1", "blocks.2"]
    assert count_classes(gpt) == "GPTBlock × 3"
    vit = ViT(1, 2, 8, 8, patch=4, dim=8, depth=2, heads=2)
    assert count_classes(choose_modules(vit)) == "ViTBlock × 2"
    assert "BasicBlock" in count_classes(choose_modules(ResNet(1, 2, widths=[4, 4, 4])))


def test_without_blocks_the_size_decides() -> None:
    model = nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 5))
    assert choose_modules(model) == {}  # far below a million
    assert list(choose_modules(model, min_params=1000)) == ["0"]
    # From the inside out: what is left of an outer module is below the size.
    assert list(choose_modules(nn.Sequential(model), min_params=500)) == ["0.0", "0.2"]


def test_classes_are_chosen_by_name_and_by_their_bases() -> None:
    class Own(nn.TransformerEncoderLayer):
        pass

    model = nn.ModuleDict({"first": Own(8, 2, 8), "second": nn.Linear(8, 8)})
    assert list(choose_modules(model, ["TransformerEncoderLayer"])) == ["first"]
    with pytest.raises(MLScaleError, match="no module of class Missing") as caught:
        choose_modules(model, ["Own", "Missing"])
    assert "Own" in caught.value.why
    assert caught.value.where == "strategy.wrap"


def test_what_shares_a_parameter_stays_together() -> None:
    assert list(choose_modules(Tied(), min_params=10)) == ["middle"]
    both = nn.Sequential(Tied(), nn.Linear(8, 8))
    assert list(choose_modules(both, ["Tied"])) == ["0"]  # the sharing is inside


def test_lists_are_not_wrapped() -> None:
    model = nn.Module()
    model.parts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    assert choose_modules(model, min_params=30) == {}  # nothing would call a list
    assert choose_blocks(MLP(4, 2), None, "activation_checkpointing") == {}  # layers without parts
