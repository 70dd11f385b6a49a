"""From an augmentation and a sample's seed to the numbers that DALI needs: those that the loader itself would draw."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlscale.data.augmentations.augmentation import Augment, BatchAugment, PerSampleAugment
from mlscale.data.augmentations.random_crop import RandomCrop
from mlscale.data.dali.operations import ImageChanges, Kind, Operation
from mlscale.data.decoding.resample import ChooseBox
from mlscale.data.order.keyed_permutation import draw_uniform
from mlscale.errors import MLScaleError

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
        from mlscale.data.dali.recorded_transforms import record_transform

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
