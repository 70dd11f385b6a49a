"""A small residual network for small images (He et al. 2015, arXiv:1512.03385, the layout of its CIFAR-10 section)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ResNet(nn.Module):
    """A 3×3 stem, stages of basic blocks, global average pooling, one linear layer.

    The stem keeps the size and every stage after the first halves it, so three stages suit 8 to 64 pixels. Where the
    paper pads the shortcut with zeros, a 1×1 convolution is used (its option B), as is usual since.

    Args:
        in_channels: channels of the image; 1 for grey, 3 for colour.
        num_classes: logits per sample.
        widths: channels of each stage.
        blocks: basic blocks in each stage.
    """

    def __init__(
        self, in_channels: int, num_classes: int, widths: Sequence[int] = (32, 64, 128), blocks: int = 1
    ) -> None:
        super().__init__()
        self.stem = _build_conv_norm(in_channels, widths[0], kernel=3)
        stages: list[nn.Module] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stages.append(BasicBlock(channels, width, stride=2 if stage > 0 and block == 0 else 1))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float (n, num_classes), for images x, float (n, in_channels, height, width)."""
        features = self.stages(F.relu(self.stem(x)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: (n, in_channels, h, w) to (n, out_channels, ⌈h/stride⌉, ⌈w/stride⌉)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = _build_conv_norm(in_channels, out_channels, kernel=3, stride=stride)
        self.second = _build_conv_norm(out_channels, out_channels, kernel=3)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else _build_conv_norm(in_channels, out_channels, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def _build_conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    # No bias: the normalisation that follows would take it away again.
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
