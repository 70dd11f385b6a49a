"""Augmentation: random changes of training samples that are bitwise reproducible.

Every change is a function of (seed, epoch, position in the epoch's order), so it is the same on any number of ranks,
threads, and after a resume.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from mlscale.data.augmentations.device_augment import check_device
from mlscale.data.augmentations.mixup import Mixing
from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.order.keyed_permutation import draw_uniform
from mlscale.errors import MLScaleError


class BatchAugment(Protocol):
    """Changes a batch; sample i by seed i alone."""

    def __call__(self, x: Tensor, seeds: NDArray[np.uint64]) -> Tensor:
        """Return the changed x, (n, C, H, W) in the units of the decoded sample; seeds are uint64 (n,)."""


class Augment:
    """Random shift, turn, change of size and mirror image, all in one bilinear resampling; then mixup and cutmix.

    What moves in from outside is 0 (black). Each amount is uniform between its negative and its positive limit. Mixing
    is done by the loader, to normalised batches, because it changes labels too (see `Mixing`).

    Args:
        shift: largest shift along each axis, as a fraction of the side.
        rotate: largest turn, degrees.
        scale: largest change of size, as a fraction: 0.1 gives 0.9 to 1.1 times the size.
        flip: mirror left and right, every second sample.
        mixup: α of mixup, 0 for none; 0.2 is usual.
        cutmix: α of cutmix, 0 for none; 1 is usual. With mixup every sample takes one or the other.
        block: neighbours in the batch that partners are chosen among; it divides the batch of a device.
        device: 'loader' changes samples in the loader's threads, 'model' on the device that trains.

    Raises:
        MLScaleError: an amount that is out of range.
    """

    def __init__(
        self,
        shift: float = 0.0,
        rotate: float = 0.0,
        scale: float = 0.0,
        flip: bool = False,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        block: int = 8,
        device: str = "loader",
    ) -> None:
        self.device = check_device(device)
        for name, value, limit in (("shift", shift, 1), ("rotate", rotate, 180), ("scale", scale, 1)):
            if not 0 <= value <= limit or (name == "scale" and value == limit):
                raise MLScaleError(
                    f"augment.{name} is {value}",
                    where=f"augment.{name}",
                    why=f"it is between 0 and {limit}",
                    fix=f"augment.{name}={min(max(value, 0), limit / 2):g}",
                )
        self.shift, self.rotate, self.scale, self.flip = shift, rotate, scale, flip
        self.mixing = Mixing(mixup, cutmix, block) if mixup or cutmix else None

    def __call__(self, x: Tensor, seeds: NDArray[np.uint64]) -> Tensor:
        """Change each sample by its own seed.

        Args:
            x: (n, C, H, W), any dtype.
            seeds: uint64 (n,).

        Returns:
            float32 (n, C, H, W).
        """
        return self._transform_images(x, seeds, "bilinear")

    def change_tensors(self, x: Tensor, seeds: NDArray[np.uint64]) -> Tensor:
        """Change samples on their device; the same values as by `__call__`, where that is a CPU.

        Args:
            x: (n, C, H, W), any dtype.
            seeds: uint64 (n,).

        Returns:
            float32 (n, C, H, W), on the same device.
        """
        draws = draw_uniform(seeds, 5)
        mirror, x = self.choose_mirrors(draws), x.to(torch.float32)
        if not self.moves_pixels:
            return mirror_tensors(x, mirror)
        height, width = x.shape[-2:]
        # Six numbers a sample are sent, and not the grid, which is larger than the image.
        terms = np.stack(self.compute_terms(draws, mirror, height, width)).astype(np.float32)
        xx, xy, x0, yx, yy, y0 = torch.from_numpy(terms).to(x.device)[:, :, None, None]
        u, v = (torch.from_numpy(axis).to(x.device) for axis in _build_axes(height, width))
        grid = torch.stack((xx * u + xy * v + x0, yx * u + yy * v + y0), dim=-1)
        return grid_sample(x, grid, "bilinear", "zeros", align_corners=False)

    def augment_with_masks(self, x: Tensor, masks: Tensor, seeds: NDArray[np.uint64]) -> tuple[Tensor, Tensor]:
        """Change each sample and its mask alike.

        Args:
            x: see `__call__`.
            masks: class numbers, uint8 (n, H, W).
            seeds: uint64 (n,).

        Returns:
            x as above; masks uint8 (n, H, W) of the nearest pixels, 255 (ignored) where x has moved in from outside.
        """
        # One more than the class, so that what comes from outside, 0, is none: it wraps round to 255.
        moved = self._transform_images(masks[:, None].float() + 1, seeds, "nearest")[:, 0]
        return self(x, seeds), torch.from_numpy((moved.numpy().astype(np.int16) - 1).astype(np.uint8))

    def _transform_images(self, x: Tensor, seeds: NDArray[np.uint64], by: str) -> Tensor:
        # numpy's conversion: torch's would wake a second thread for it.
        x = torch.from_numpy(x.numpy().astype(np.float32, copy=False))
        # Always five: switching one change on leaves the amounts of the others as they were.
        draws = draw_uniform(seeds, 5)
        mirror = self.choose_mirrors(draws)
        # A flip alone is a copy of pixels, without the rounding of a resampling.
        if not self.moves_pixels:
            return mirror_tensors(x, mirror)
        return grid_sample(x, self._build_grid(draws, mirror, *x.shape[-2:]), by, "zeros", align_corners=False)

    @property
    def moves_pixels(self) -> bool:
        """True if pixels are resampled, and not only mirrored."""
        return bool(self.shift or self.rotate or self.scale)

    def choose_mirrors(self, draws: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return True for each sample that is mirrored, by its draws (n, 5)."""
        return draws[:, 4] < 0.5 if self.flip else np.zeros(len(draws), np.bool_)

    def compute_terms(
        self, draws: NDArray[np.float32], mirror: NDArray[np.bool_], height: int, width: int
    ) -> tuple[NDArray[np.float64], ...]:
        """Return xx, xy, x0, yx, yy, y0 of each sample, six of float64 (n,), from the output to the input.

        The source of an output pixel (u, v) is (xx·u + xy·v + x0, yx·u + yy·v + y0), in units of half the side.
        """
        signed = draws[:, :4].astype(np.float64) * 2 - 1
        angle = np.deg2rad(self.rotate) * signed[:, 2]
        # The grid maps the output to the input, so a larger image has a smaller grid.
        zoom = 1 / (1 + self.scale * signed[:, 3])
        cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
        sign = np.where(mirror, -1.0, 1.0)
        # A turn is one of pixels, not of half sides, which differ where the image is not square.
        return (
            sign * cos, -sign * sin * (height / width), 2 * self.shift * signed[:, 0],
            sin * (width / height), cos, 2 * self.shift * signed[:, 1],
        )  # fmt: skip

    def _build_grid(self, draws: NDArray[np.float32], mirror: NDArray[np.bool_], height: int, width: int) -> Tensor:
        """Return the source of each output pixel, float32 (n, H, W, 2), in units of half the side.

        Written out instead of affine_grid, whose matrix product may round a sample in another way in another batch.
        """
        terms = self.compute_terms(draws, mirror, height, width)
        xx, xy, x0, yx, yy, y0 = (term.astype(np.float32)[:, None, None] for term in terms)
        u, v = _build_axes(height, width)
        return torch.from_numpy(np.stack((xx * u + xy * v + x0, yx * u + yy * v + y0), axis=-1))


def _build_axes(height: int, width: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the places of output pixels in units of half the side: float32 u (1, 1, W) and v (1, H, 1)."""
    u = ((np.arange(width, dtype=np.float32) * 2 + 1) / width - 1)[None, None, :]
    v = ((np.arange(height, dtype=np.float32) * 2 + 1) / height - 1)[None, :, None]
    return u, v


def mirror_tensors(x: Tensor, mirror: NDArray[np.bool_]) -> Tensor:
    """Return x (n, C, H, W) with left and right swapped where `mirror` (n,) is true."""
    return torch.where(torch.from_numpy(mirror).to(x.device)[:, None, None, None], x.flip(-1), x)


class PerSampleAugment:
    """A user's own transform, such as torchvision's v2: applied to each sample, with random generators set by its seed.

    torch's, Python's and numpy's global generators are set before each sample and put back after the batch, so the
    transform repeats and the training loop's own draws are not disturbed. It runs in the caller's thread, or in a
    process of its own (`data.executor`); torch computes it with one thread in both, so that all sums round alike.

    Args:
        transform: takes and returns one sample (C, H, W) of the decoded dtype, uint8 from 0 to 255 for images; a
            change of
            size is allowed if it is the same for all. Normalising comes afterwards and is not its business.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    @property
    def name(self) -> str:
        """The name of the transform, for messages."""
        return f"the transform {getattr(self.transform, '__name__', type(self.transform).__name__)}"

    def __call__(self, x: Tensor, seeds: NDArray[np.uint64], mark: Callable[[int], None] | None = None) -> Tensor:
        """Change each sample by its own seed; same dtype as x.

        Args:
            x: see `BatchAugment`.
            seeds: uint64 (n,).
            mark: called with the number of each sample before it is changed.

        Raises:
            MLScaleError: the result is not a tensor of that dtype.
        """
        results: list[Tensor] = []
        with preserve_global_generators(), compute_single_threaded():
            for row, (sample, seed) in enumerate(zip(x, seeds, strict=True)):
                if mark is not None:
                    mark(row)
                results.append(self._transform_sample(sample, int(seed)))
                check_sizes(self.name, tuple(results[-1].shape), tuple(results[0].shape))
            return torch.stack(results)

    def augment_with_masks(
        self, x: Tensor, masks: Tensor, seeds: NDArray[np.uint64], mark: Callable[[int], None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Change each sample and its mask, uint8 (n, H, W), together; see `check_pairs`."""
        from torchvision import tv_tensors

        pairs = []
        with preserve_global_generators(), compute_single_threaded():
            for row, (sample, mask, seed) in enumerate(zip(x, masks, seeds, strict=True)):
                if mark is not None:
                    mark(row)
                seed_generators(int(seed))
                # By these types a v2 transform knows the mask: it takes nearest pixels and changes no colours in it.
                image, moved = self.transform(tv_tensors.Image(sample), tv_tensors.Mask(mask))  # type: ignore[call-arg]
                pairs.append((self._check_result(image.as_subclass(Tensor), sample), moved.as_subclass(Tensor)))
        return torch.stack([image for image, _ in pairs]), torch.stack([moved for _, moved in pairs])

    def check_pairs(self) -> None:
        """Raise if the transform can't move a mask with its image; those of torchvision.transforms.v2 can.

        Raises:
            MLScaleError: it is another one.
        """
        from torchvision.transforms.v2 import Transform

        if not isinstance(self.transform, Transform):
            raise MLScaleError(
                f"the transform {type(self.transform).__name__} takes an image alone",
                where="augment",
                why="a mask has to be moved as its image is",
                fix="augment=flip\naugment=crop\naugment._target_=<a transform of torchvision.transforms.v2>",
            )

    def _transform_sample(self, sample: Tensor, seed: int) -> Tensor:
        seed_generators(seed)
        return self._check_result(self.transform(sample), sample)

    def _check_result(self, result: object, sample: Tensor) -> Tensor:
        if not isinstance(result, Tensor) or result.dtype != sample.dtype:
            got = f"a tensor of {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
            raise MLScaleError(
                f"the transform {type(self.transform).__name__} returned {got}",
                where="augment",
                why=f"it is given a tensor of {sample.dtype} and must return one; images are normalised afterwards",
                fix="leave ToTensor, ToDtype and Normalize out, or end with "
                "torchvision.transforms.v2.ToDtype(torch.uint8, scale=True)",
            )
        return result


def check_sizes(name: str, one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """Raise if a transform gave two samples of a batch different sizes.

    Raises:
        MLScaleError: it did.
    """
    if one != other:
        raise MLScaleError(
            f"{name} returned {one} of one sample and {other} of another",
            where="augment",
            why="the samples of a batch are of one size",
            fix="let it end with a step that sets the size, e.g. torchvision.transforms.v2.Resize((224, 224))",
        )


class preserve_global_generators:  # noqa: N801  reads as a statement
    """Put torch's (CPU), Python's and numpy's global random generators back as they were."""

    def __enter__(self) -> None:
        self._states = torch.default_generator.get_state(), random.getstate(), np.random.get_state()

    def __exit__(self, *_: object) -> None:
        torch.default_generator.set_state(self._states[0])
        random.setstate(self._states[1])
        np.random.set_state(self._states[2])


class compute_single_threaded:  # noqa: N801  reads as a statement
    """Let torch compute with one thread, then with as many as before."""

    def __enter__(self) -> None:
        self._threads = torch.get_num_threads()
        if self._threads > 1:
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        if self._threads > 1:
            torch.set_num_threads(self._threads)


def seed_generators(seed: int) -> None:
    """Set torch's (CPU), Python's and numpy's global random generators."""
    # Not torch.manual_seed, which seeds the generators of GPUs too.
    torch.default_generator.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    random.seed(seed)
    # numpy's global generator takes seeds of 32 bits.
    np.random.seed(seed & 0xFFFF_FFFF)


def wrap_augment(augment: object) -> BatchAugment | None:
    """Return mlscale's own augmentation unchanged, a user's callable wrapped in `PerSampleAugment`, None for none.

    Raises:
        MLScaleError: it cannot be called.
    """
    if augment is None or isinstance(augment, Augment | RandomCrop):
        return augment
    if callable(augment):
        return PerSampleAugment(augment)
    raise MLScaleError(
        f"augment is {type(augment).__name__}, which cannot be called",
        where="augment",
        fix="augment._target_=torchvision.transforms.v2.RandomHorizontalFlip, or another class whose instances take an "
        "image tensor and return one",
    )
