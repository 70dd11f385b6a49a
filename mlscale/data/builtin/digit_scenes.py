"""Scenes of several handwritten digits, composed of real ones, to learn segmentation and several labels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from mlscale.data.builtin.image_sets import BundledImages, Samples, encode_png, split_digits
from mlscale.data.order.keyed_permutation import derive_sample_seeds, draw_uniform
from mlscale.data.order.policy import TolerantPolicyArguments

SIDE = 40
_COUNTS = {"train": 2000, "val": 500}
_MAX_DIGITS = 4  # digits in a scene
_MAX_TRIES = 8  # places that are drawn for a digit before it is left out
_MIN_INK = 4  # of 16: from here a pixel is of its digit; what is fainter, and not blank, is ignored
_IGNORED = 255


class DigitsScenes(BundledImages):
    """40×40 grey scenes of one to four of scikit-learn's handwritten digits (UCI, CC BY 4.0), as MultiMNIST has them.

    The scenes are synthetic, the digits real: each at a random place on black, as large as it is or twice, none over
    another. 2,000 to train and 500 to validate, of digits of the same two sides as in `Digits`, so that no handwriting
    is on both. Next to `png` a sample has `mask.png`, the class of each pixel (0 background, digit d is d + 1, 255 for
    the faint rim of a stroke), and `json`, the digits of the scene.

    Args:
        root: the folder to keep the set in; None for the cache.
        labels: 'mask', or 'several' for the digits of a scene.
        image_size: see `ImageBackend`.
        workers: threads that decode, per process.
        policy: see `Policy`.
    """

    set_name = "digits-scenes-1"
    option = "digits_scenes"
    shard_size = 500
    licence = "CC-BY-4.0"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        labels: str = "mask",
        image_size: int | None = None,
        workers: int | str = "auto",
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        classes = ["background", *map(str, range(10))] if labels == "mask" else None
        self.shard_options = {"image_key": "png", "labels": labels, "classes": classes}
        policy.setdefault("batch_size", 32)
        super().__init__(root, image_size, workers, **policy)

    def _load_samples(self) -> Iterator[tuple[str, Samples]]:
        for split, images, labels in split_digits():
            yield split, (_COUNTS[split], _compose_scenes(split, images, labels))


def _compose_scenes(split: str, images: NDArray[np.float64], labels: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Yield the members of each scene. The draws are those of the loader's own generator: the same on every machine."""
    numbers = np.arange(_COUNTS[split], dtype=np.int64)
    # A scene: how many digits; a digit: its image, its scale, and two coordinates for each place to try.
    draws = draw_uniform(
        derive_sample_seeds(numbers, seed=0, epoch=0, stream=f"scenes {split}"), 1 + _MAX_DIGITS * (2 + 2 * _MAX_TRIES)
    )
    for row in draws.astype(np.float64):
        scene, mask = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
        scene_classes: set[int] = set()
        for draw in row[1:].reshape(_MAX_DIGITS, -1)[: 1 + int(row[0] * _MAX_DIGITS)]:
            chosen, scale = int(draw[0] * len(images)), 1 + int(draw[1] * 2)
            digit = images[chosen].astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
            if (area := _find_free_area(scene, len(digit), draw[2:])) is not None:
                scene[area] = np.round(digit * (255 / 16)).astype(np.uint8)
                mask[area] = np.where(digit >= _MIN_INK, labels[chosen] + 1, np.where(digit > 0, _IGNORED, 0))
                scene_classes.add(int(labels[chosen]))
        yield {
            "png": encode_png(scene),
            "mask.png": encode_png(mask),
            "json": json.dumps(sorted(scene_classes)).encode(),
        }


def _find_free_area(scene: NDArray[np.uint8], side: int, draws: NDArray[np.float64]) -> tuple[slice, slice] | None:
    """Return the first drawn place where a square of that side overlaps no digit; None if there is none."""
    for down, right in draws.reshape(-1, 2):
        top, left = int(down * (SIDE - side + 1)), int(right * (SIDE - side + 1))
        area = slice(top, top + side), slice(left, left + side)
        if not scene[area].any():
            return area
    return None
