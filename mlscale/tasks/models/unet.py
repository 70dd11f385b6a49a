"""A small U-Net (Ronneberger et al. 2015, arXiv:1505.04597)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UNet(nn.Module):
    """An encoder that halves the size, a decoder that doubles it, and skip connections between maps of one size.

    Where the paper leaves the border out, convolutions are padded, so that masks are of the image's size; batch
    normalisation follows each, as is usual since. Images are of any size: the decoder's maps are resized to those of
    the skip connections.

    Args:
        in_channels: channels of the image; 1 for grey, 3 for colour.
        num_classes: logits per pixel, background included.
        widths: channels at each size, from the image's own down.
    """

    def __init__(self, in_channels: int, num_classes: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _build_double_conv(before, width) for before, width in zip((in_channels, *widths), widths, strict=False)
        )
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.narrow = nn.ModuleList(nn.Conv2d(below, width, 1) for below, width in pairs)
        self.up = nn.ModuleList(_build_double_conv(2 * width, width) for _, width in pairs)
        self.head = nn.Conv2d(widths[0], num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float (n, num_classes, height, width), for images x, float (n, in_channels, height, width)."""
        skips: list[Tensor] = []
        for number, block in enumerate(self.down):
            # Rounded up: an odd size keeps its last row and column.
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if number else x)
            skips.append(x)
        for narrow, block, skip in zip(self.narrow, self.up, skips[-2::-1], strict=True):
            # To the size of the skip connection, not twice its own: an odd size was rounded up on the way down.
            x = F.interpolate(narrow(x), size=skip.shape[-2:], mode="nearest")
            x = block(torch.cat([skip, x], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _build_double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3×3 convolutions that keep the size, each normalised, with ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            # No bias: the normalisation subtracts it again.
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
