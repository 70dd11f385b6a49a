"""The small backbones and the lazy exports."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from mlscale.errors import MLScaleError
from mlscale.tasks import MLP, ResNet, UNet, ViT


@pytest.mark.parametrize("side", [8, 28, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet_takes_small_images_of_any_size(side: int, channels: int) -> None:
    model = ResNet(in_channels=channels, num_classes=7)
    assert model(torch.randn(2, channels, side, side)).shape == (2, 7)


def test_resnet_depth_and_width_are_as_asked() -> None:
    model = ResNet(in_channels=1, num_classes=2, widths=[4, 8], blocks=3)
    assert len(model.stages) == 6
    assert model.stages(model.stem(torch.randn(1, 1, 8, 8))).shape == (1, 8, 4, 4)


def test_every_parameter_of_resnet_gets_a_gradient() -> None:
    model = ResNet(in_channels=1, num_classes=3, widths=[4, 8], blocks=2)
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 8, 2), (28, 14, 7), (6, 4, 1)])
def test_vit_takes_images_that_its_patches_divide(height: int, width: int, patch: int) -> None:
    model = ViT(3, 7, height, width, patch=patch, dim=16, depth=2, heads=2)
    assert model(torch.randn(2, 3, height, width)).shape == (2, 7)
    model(torch.randn(4, 3, height, width)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_vit_knows_where_a_patch_is() -> None:
    model = ViT(1, 3, 4, 4, patch=2, dim=16, depth=1, heads=2).eval()
    x = torch.randn(1, 1, 4, 4)
    assert not torch.allclose(model(x), model(x.flip(-1)), atol=1e-4)
    assert torch.allclose(model(torch.cat([x, x.flip(-1)]))[:1], model(x), atol=1e-5)


def test_vit_s_attention_is_torch_s() -> None:
    """A block against torch's own layer, with the same weights."""
    block: Any = ViT(1, 3, 4, 4, dim=16, depth=1, heads=4, mlp_ratio=2).blocks[0].eval()
    theirs = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True, norm_first=True).eval()
    pairs = {
        "self_attn.in_proj_weight": block.qkv.weight, "self_attn.in_proj_bias": block.qkv.bias,
        "self_attn.out_proj.weight": block.out.weight, "self_attn.out_proj.bias": block.out.bias,
        "norm1.weight": block.norm_attention.weight, "norm1.bias": block.norm_attention.bias,
        "norm2.weight": block.norm_layers.weight, "norm2.bias": block.norm_layers.bias,
        "linear1.weight": block.layers[0].weight, "linear1.bias": block.layers[0].bias,
        "linear2.weight": block.layers[3].weight, "linear2.bias": block.layers[3].bias,
    }  # fmt: skip
    theirs.load_state_dict(pairs)
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        assert torch.allclose(block(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize(
    ("choices", "where", "fix"),
    [({"patch": 3}, "model.patch", "model.patch=2"), ({"dim": 30}, "model.heads, model.dim", "model.dim=32")],
)
def test_vit_s_sizes_divide(choices: dict[str, int], where: str, fix: str) -> None:
    with pytest.raises(MLScaleError, match="do not divide") as caught:
        ViT(1, 2, 8, 8, **choices)
    assert (caught.value.where, caught.value.fix) == (where, fix)


@pytest.mark.parametrize("size", [(8, 8), (7, 13), (40, 33)])
def test_unet_gives_a_mask_of_the_image_s_size(size: tuple[int, int]) -> None:
    model = UNet(3, 5, [4, 8, 16])
    assert model(torch.randn(2, 3, *size)).shape == (2, 5, *size)
    assert [len(part) for part in (model.down, model.up)] == [3, 2]
    model(torch.randn(2, 3, *size)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_mlp_finds_its_input_size() -> None:
    model = MLP(in_features=None, num_classes=5, hidden=[6])
    assert model(torch.randn(2, 1, 4, 4)).shape == (2, 5)
    assert MLP(in_features=16, num_classes=5, hidden=[])(torch.randn(2, 16)).shape == (2, 5)


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, mlscale.tasks; assert 'torch' not in sys.modules; assert mlscale.tasks.ResNet.__name__ == 'ResNet'"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
