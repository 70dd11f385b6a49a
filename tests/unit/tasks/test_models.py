"""The small backbones and the lazy exports."""

import subprocess
import sys

import pytest
import torch

from mlscale.tasks import MLP, ResNet


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


def test_mlp_finds_its_input_size() -> None:
    model = MLP(in_features=None, num_classes=5, hidden=[6])
    assert model(torch.randn(2, 1, 4, 4)).shape == (2, 5)
    assert MLP(in_features=16, num_classes=5, hidden=[])(torch.randn(2, 16)).shape == (2, 5)


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, mlscale.tasks; assert 'torch' not in sys.modules; assert mlscale.tasks.ResNet.__name__ == 'ResNet'"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
