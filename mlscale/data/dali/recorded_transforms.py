"""The operations that a transform of torchvision would do to a sample, with their numbers, without doing them.

A transform draws its numbers and calls functions of `torchvision.transforms.v2.functional`, which look for a kernel by
the type of the image. The type here has kernels that note the call. So any composition (`Compose`, `RandomApply`,
`RandAugment`, …) draws from the generators exactly what it draws in the loader, and what DALI has no counterpart for is
an error and never left out.

`AugmentationPlan` gives DALI the numbers that the loader itself would draw of a sample's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.functional import InterpolationMode, _get_inverse_affine_matrix
from torchvision.transforms.v2 import functional

from mlscale.data.augmentations.augmentation import (
    Augment,
    BatchAugment,
    PerSampleAugment,
    preserve_global_generators,
    seed_generators,
)
from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.dali.operations import MOVES, ImageChanges, Kind, Operation
from mlscale.data.decoding.resample import ChooseBox
from mlscale.data.order.keyed_permutation import draw_uniform
from mlscale.errors import MLScaleError

_BITS = 8


class RecordedImage(tv_tensors.Image):  # type: ignore[misc]  # torchvision has no types
    """An image whose pixels are never read; `operations` grows with each call."""

    operations: list[Operation]


def record_transform(
    transform: Callable[[Tensor], Tensor], seeds: NDArray[np.uint64], size: tuple[int, int, int]
) -> Sequence[ImageChanges]:
    """Return what a transform does to each sample, with the random numbers of its seed.

    Args:
        transform: of torchvision.transforms.v2.
        seeds: uint64 (n,).
        size: channels, height and width of a sample.

    Raises:
        MLScaleError: it does something that DALI has no counterpart for.
    """
    with preserve_global_generators():
        return [_arrange_mirrors(_record_sample(transform, int(seed), size), size[2]) for seed in seeds]


def _record_sample(transform: Callable[[Tensor], Tensor], seed: int, size: tuple[int, int, int]) -> Sequence[Operation]:
    seed_generators(seed)
    # One byte, whatever the size: nothing reads it.
    image = RecordedImage(torch.zeros((), dtype=torch.uint8).expand(size))
    image.operations = []
    result = transform(image)
    # Code that is not torchvision's returns another tensor.
    if result is not image:
        raise _create_no_counterpart_error(type(transform).__name__)
    return image.operations


def _arrange_mirrors(operations: Sequence[Operation], width: int) -> ImageChanges:
    """Return the operations; mirror images are joined into one at the end, unless something else is moved."""
    mirror = _create_mirror(width)
    others = [operation for operation in operations if operation != mirror]
    if any(operation.kind in MOVES for operation in others):
        return ImageChanges(False, operations)
    return ImageChanges((len(operations) - len(others)) % 2 == 1, others)


def _create_mirror(width: int) -> Operation:
    return Operation(Kind.NEAREST, (-1.0, 0.0, float(width), 0.0, 1.0, 0.0))


# The kernels: each has the arguments of its functional.


def _record_flip_left_right(image: RecordedImage) -> RecordedImage:
    return _append_operation(image, _create_mirror(image.shape[-1]))


def _record_flip_up_down(image: RecordedImage) -> RecordedImage:
    # The last row becomes the first.
    return _append_operation(image, Operation(Kind.NEAREST, (1.0, 0.0, 0.0, 0.0, -1.0, float(image.shape[-2]))))


def _record_affine(
    image: RecordedImage,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Sequence[float],
    interpolation: object = InterpolationMode.NEAREST,
    fill: object = None,
    center: Sequence[float] | None = None,
) -> RecordedImage:
    matrix = _get_inverse_affine_matrix(
        _compute_centre(image, center), angle, list(map(float, translate)), scale, list(map(float, shear))
    )
    return _append_operation(image, _create_move(image, matrix, interpolation, fill))


def _record_rotate(
    image: RecordedImage,
    angle: float,
    interpolation: object = InterpolationMode.NEAREST,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: object = None,
) -> RecordedImage:
    if expand:
        raise _create_no_counterpart_error("rotate with expand=true")
    # torchvision's rotate turns the other way round than its affine.
    matrix = _get_inverse_affine_matrix(_compute_centre(image, center), -angle, [0.0, 0.0], 1.0, [0.0, 0.0])
    return _append_operation(image, _create_move(image, matrix, interpolation, fill))


def _compute_centre(image: RecordedImage, center: Sequence[float] | None) -> list[float]:
    """Return the fixed point in pixels from the middle of the image."""
    if center is None:
        return [0.0, 0.0]
    return [at - side / 2 for at, side in zip(center, (image.shape[-1], image.shape[-2]), strict=True)]


def _create_move(image: RecordedImage, matrix: Sequence[float], interpolation: object, fill: object) -> Operation:
    # Transforms pass names or Pillow's numbers, as they were given.
    kinds = {"nearest": Kind.NEAREST, "0": Kind.NEAREST, "bilinear": Kind.BILINEAR, "2": Kind.BILINEAR}
    name = str(getattr(interpolation, "value", interpolation))
    if name not in kinds:
        raise _create_no_counterpart_error(f"interpolation={name}")
    if fill is not None and np.any(np.asarray(fill)):
        raise _create_no_counterpart_error(f"fill={fill}")
    # torchvision's origin is the middle of the image, DALI's its corner.
    x, y = image.shape[-1] / 2, image.shape[-2] / 2
    xx, xy, x0, yx, yy, y0 = matrix
    moved = (xx, xy, x0 + x - xx * x - xy * y, yx, yy, y0 + y - yx * x - yy * y)
    kind = kinds[name]
    return Operation(Kind.FILLED if kind is Kind.BILINEAR and fill is not None else kind, moved)


def _record_adjust_brightness(image: RecordedImage, brightness_factor: float) -> RecordedImage:
    return _append_operation(image, Operation(Kind.BRIGHTNESS, (brightness_factor,)))


def _record_adjust_contrast(image: RecordedImage, contrast_factor: float) -> RecordedImage:
    kind = Kind.GREY_CONTRAST if image.shape[0] == 1 else Kind.CONTRAST
    return _append_operation(image, Operation(kind, (contrast_factor,)))


def _record_adjust_saturation(image: RecordedImage, saturation_factor: float) -> RecordedImage:
    # Grey images have none.
    return image if image.shape[0] == 1 else _append_operation(image, Operation(Kind.SATURATION, (saturation_factor,)))


def _record_adjust_sharpness(image: RecordedImage, sharpness_factor: float) -> RecordedImage:
    # torchvision leaves images alone that have no inner pixels.
    return (
        image
        if min(image.shape[-2:]) <= 2
        else _append_operation(image, Operation(Kind.SHARPNESS, (sharpness_factor,)))
    )


def _record_posterize(image: RecordedImage, bits: int) -> RecordedImage:
    return _append_operation(image, Operation(Kind.POSTERIZE, (float(1 << max(0, _BITS - bits)),)))


def _record_solarize(image: RecordedImage, threshold: float) -> RecordedImage:
    return _append_operation(image, Operation(Kind.SOLARIZE, (threshold,)))


def _record_autocontrast(image: RecordedImage) -> RecordedImage:
    return _append_operation(image, Operation(Kind.AUTOCONTRAST))


def _record_equalize(image: RecordedImage) -> RecordedImage:
    return _append_operation(image, Operation(Kind.EQUALIZE))


def _record_invert(image: RecordedImage) -> RecordedImage:
    return _append_operation(image, Operation(Kind.INVERT))


def _record_rgb_to_grayscale(image: RecordedImage, num_output_channels: int = 1) -> RecordedImage:
    if image.shape[0] == 1:
        return image
    if num_output_channels != 3:
        raise _create_no_counterpart_error("Grayscale of one channel")
    return _append_operation(image, Operation(Kind.GREY))


def _record_to_dtype(image: RecordedImage, dtype: torch.dtype = torch.float32, scale: bool = False) -> RecordedImage:
    if dtype != torch.uint8:
        raise _create_no_counterpart_error(f"ToDtype({dtype})")
    return image


def _append_operation(image: RecordedImage, operation: Operation) -> RecordedImage:
    image.operations.append(operation)
    return image


def _create_no_counterpart_error(name: str) -> MLScaleError:
    return MLScaleError(
        f"{name} has no counterpart in DALI",
        where="augment",
        why="what data=dali can't do as torchvision does it is refused, and not left out",
        fix="data=webdataset, which runs every transform; or leave it out",
    )


_KERNELS: Sequence[tuple[Any, Callable[..., RecordedImage]]] = (
    (functional.horizontal_flip, _record_flip_left_right),
    (functional.vertical_flip, _record_flip_up_down),
    (functional.affine, _record_affine),
    (functional.rotate, _record_rotate),
    (functional.adjust_brightness, _record_adjust_brightness),
    (functional.adjust_contrast, _record_adjust_contrast),
    (functional.adjust_saturation, _record_adjust_saturation),
    (functional.adjust_sharpness, _record_adjust_sharpness),
    (functional.posterize, _record_posterize),
    (functional.solarize, _record_solarize),
    (functional.autocontrast, _record_autocontrast),
    (functional.equalize, _record_equalize),
    (functional.invert, _record_invert),
    (functional.rgb_to_grayscale, _record_rgb_to_grayscale),
    (functional.to_dtype, _record_to_dtype),
)


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse_call(*_: object, **__: object) -> NoReturn:
        raise _create_no_counterpart_error(name)

    return refuse_call


def _register_kernels() -> None:
    """Give every functional that changes images a kernel for `RecordedImage`: else torchvision's own would run."""
    known = dict(_KERNELS)
    for name in dir(functional):
        item = getattr(functional, name)
        # What only asks for the size of an image changes nothing; a name with a type is a kernel itself.
        if not callable(item) or name.startswith(("get_", "_")) or item in known:
            continue
        if isinstance(item, type) or name.rpartition("_")[2] in ("image", "video", "mask"):
            continue
        try:
            functional.register_kernel(item, RecordedImage)(_refuse(name))
        except ValueError:  # not a functional
            continue
    for item, kernel in known.items():
        functional.register_kernel(item, RecordedImage)(kernel)


_register_kernels()


SampleSize = tuple[int, int, int]
"""Channels, height and width."""


class AugmentationPlan:
    """The changes of each sample of a batch, as DALI gets them.

    Args:
        augment: of the training samples; None for none.
        size: of an image as the model gets it.

    Raises:
        MLScaleError: an augmentation that only runs in Python.
    """

    def __init__(self, augment: BatchAugment | None, size: SampleSize) -> None:
        if not isinstance(augment, Augment | RandomCrop | PerSampleAugment | None):
            raise MLScaleError(
                f"the augmentation {type(augment).__name__} has no counterpart in DALI",
                where="augment",
                why="it is code in Python that takes whole batches",
                fix="augment=crop, augment=flip or augment=shift; or data=webdataset, which runs it",
            )
        self._augment, self._size = augment, size

    def choose_parts(self, seeds: NDArray[np.uint64]) -> Sequence[ChooseBox | None]:
        """Return what chooses the part of each stored image; None for the middle."""
        if not isinstance(self._augment, RandomCrop):
            return [None] * len(seeds)
        return [partial(self._augment.choose_box, draws) for draws in self._augment.draw_numbers(seeds)]

    def choose_changes(self, seeds: NDArray[np.uint64]) -> Sequence[ImageChanges]:
        """Return what is changed in each image once it has its size."""
        if isinstance(self._augment, RandomCrop):
            return [ImageChanges(self._augment.is_mirrored(draws)) for draws in self._augment.draw_numbers(seeds)]
        if isinstance(self._augment, Augment):
            return _choose_moves(self._augment, seeds, self._size)
        if self._augment is None:
            return [ImageChanges()] * len(seeds)
        # torchvision is imported by those who use its transforms.

        return record_transform(self._augment.transform, seeds, self._size)


def _choose_moves(augment: Augment, seeds: NDArray[np.uint64], size: SampleSize) -> Sequence[ImageChanges]:
    _, height, width = size
    # The same five numbers that `Augment` draws, whichever of its changes are on.
    draws = draw_uniform(seeds, 5)
    # A flip alone costs nothing while the image is normalised.
    if not augment.moves_pixels:
        return [ImageChanges(bool(mirror)) for mirror in augment.choose_mirrors(draws)]
    terms = augment.compute_terms(draws, augment.choose_mirrors(draws), height, width)
    return [
        ImageChanges(operations=(Operation(Kind.SMOOTH, convert_to_pixels(sample, height, width)),))
        for sample in np.stack(terms, axis=1)
    ]


def convert_to_pixels(terms: NDArray[np.float64], height: int, width: int) -> list[float]:
    """Return the matrix (2, 3), row by row, of a move whose terms are in units of half the side, as `grid_sample`'s.

    In pixels the origin is the corner of the first one, in half sides it is the middle of the image.
    """
    xx, xy, x0, yx, yy, y0 = terms.tolist()
    # With x = (u + 1) · width / 2, and y alike.
    return [
        xx, xy * width / height, (x0 + 1 - xx - xy) * width / 2,
        yx * height / width, yy, (y0 + 1 - yx - yy) * height / 2,
    ]  # fmt: skip
