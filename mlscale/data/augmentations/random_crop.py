"""Random parts of pictures, chosen before decoding: the usual augmentation of photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlscale.data.augmentations.device_augment import check_device
from mlscale.data.augmentations.mixup import Mixing
from mlscale.data.decoding.resample import Box, find_middle_box, resize_region
from mlscale.data.order.keyed_permutation import draw_uniform
from mlscale.errors import MLScaleError

_MAX_TRIES = 10


class RandomCrop:
    """A part of random area and proportions, brought to the run's image size, and every second sample mirrored.

    The 'inception crop' (Szegedy et al., 'Going deeper with convolutions', 2015) with torchvision's limits. It is cut
    from the picture as it is stored, while decoding, so the picture is resampled once. Area, proportions and place are
    functions of (seed, epoch, position), on every rank and thread.

    Args:
        area: least and largest part of the picture's area.
        ratio: least and largest width / height, where 1 has the proportions of the image size.
        flip: mirror left and right, every second sample.
        mixup: α of mixup, 0 for none; 0.2 is usual. See `Mixing`.
        cutmix: α of cutmix, 0 for none; 1 is usual. With mixup every sample takes one or the other.
        block: neighbours in the batch that partners are chosen among; it divides the batch of a device.
        device: 'loader' does all in the loader's threads; with 'model' the device that trains does all but the crop.

    Raises:
        MLScaleError: limits that are out of range or in the wrong order.
    """

    def __init__(
        self,
        area: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (0.75, 1.3333),
        flip: bool = True,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        block: int = 8,
        device: str = "loader",
    ) -> None:
        self.device = check_device(device)
        if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
            raise MLScaleError(
                f"augment.area is {list(area)}",
                where="augment.area",
                why="it is the least and the largest part of the area: above 0, up to 1, in this order",
                fix="augment.area=[0.08,1]",
            )
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
            raise MLScaleError(
                f"augment.ratio is {list(ratio)}",
                where="augment.ratio",
                why="it is the least and the largest width / height: above 0, in this order",
                fix="augment.ratio=[0.75,1.3333]",
            )
        self.area, self.ratio, self.flip = tuple(area), tuple(ratio), flip
        self.mixing = Mixing(mixup, cutmix, block) if mixup or cutmix else None

    def __call__(self, x: Tensor, seeds: NDArray[np.uint64]) -> Tensor:
        """Crop samples that are decoded already: each becomes a part of itself, at its own size.

        Args:
            x: (n, C, H, W), uint8 or float32.
            seeds: uint64 (n,).

        Returns:
            (n, C, H, W) of the same dtype.
        """
        result = np.empty(tuple(x.shape), x.numpy().dtype)
        for image, draws, out in zip(x.numpy(), self.draw_numbers(seeds), result, strict=True):
            size = (image.shape[1], image.shape[2])
            part = resize_region(image.transpose(1, 2, 0), self.choose_box(draws, *size, size), size).transpose(2, 0, 1)
            out[...] = part[..., ::-1] if self.is_mirrored(draws) else part
        return torch.from_numpy(result)

    def change_tensors(self, x: Tensor, seeds: NDArray[np.uint64]) -> Tensor:
        """Mirror samples that are cut already, on their device: float32 (n, C, H, W)."""
        mirror = np.array([self.is_mirrored(draws) for draws in self.draw_numbers(seeds)], np.bool_)
        # Before it is converted: a byte is quicker to move than four.
        mask = torch.from_numpy(mirror).to(x.device)[:, None, None, None]
        return torch.where(mask, x.flip(-1), x).to(torch.float32)

    def draw_numbers(self, seeds: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Return the random numbers of each sample: float32 (n, k) in [0, 1), from its seed alone."""
        # One for the mirror, two for the position, and two for area and proportions of each try.
        return draw_uniform(seeds, 3 + 2 * _MAX_TRIES)

    def is_mirrored(self, draws: NDArray[np.float32]) -> bool:
        """Return True if the sample with these draws (k,) is mirrored."""
        return self.flip and float(draws[0]) < 0.5

    def choose_box(self, draws: NDArray[np.float32], height: int, width: int, size: tuple[int, int]) -> Box:
        """Return the part of a picture of height × width that becomes an image of `size`.

        As torchvision does it: area and proportions are drawn until the part fits, ten times at most; then it is the
        middle.
        """
        down, right, *shapes = draws[1:].tolist()
        # Uniform in the logarithm, so that 3:4 is as likely as 4:3.
        low, high = (math.log(limit * size[1] / size[0]) for limit in self.ratio)
        for area, ratio in zip(shapes[::2], shapes[1::2], strict=True):
            pixels = height * width * (self.area[0] + area * (self.area[1] - self.area[0]))
            proportion = math.exp(low + ratio * (high - low))
            h, w = round(math.sqrt(pixels / proportion)), round(math.sqrt(pixels * proportion))
            if 0 < h <= height and 0 < w <= width:
                return Box(int(down * (height - h + 1)), int(right * (width - w + 1)), h, w)
        return find_middle_box(height, width, size)
