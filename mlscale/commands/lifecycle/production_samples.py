"""The samples that the tour sends: images of the recipe's own data, as they are and shifted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig

Pixels = NDArray[Any]
_MAX_HELD_OUT = 2000


def _invert_images(raw: Pixels) -> Pixels:
    # Other dtypes have no fixed range: the largest value counts as white.
    top = 255 if raw.dtype == np.uint8 else raw.max()
    return np.asarray(top - raw, raw.dtype)


def _rotate_images(raw: Pixels) -> Pixels:
    # rot90 returns a view, and images are sent as contiguous bytes; axes 2 and 3 are height and width.
    return np.ascontiguousarray(np.rot90(raw, axes=(2, 3)))


SHIFTS: Mapping[str, Callable[[Pixels], Pixels]] = {"invert": _invert_images, "turn": _rotate_images}
"""Functions from raw images (n, c, height, width) to what production sends after the change; shapes and dtypes stay."""


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """n images with their classes.

    Attributes:
        raw: as they are decoded, (n, c, height, width).
        labels: the names of their classes, (n,).
    """

    raw: Pixels
    labels: NDArray[np.str_]

    def apply_shift(self, shift: str) -> LabelledSamples:
        """Return the same images after `shift`."""
        return LabelledSamples(SHIFTS[shift](self.raw), self.labels)

    def compare_labels(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of `labels` are correct, bool (n,)."""
        return np.array(self.labels == np.array(labels), bool)

    def compute_accuracy(self, labels: Sequence[str]) -> float:
        """Return the share of `labels` that is correct."""
        return float(self.compare_labels(labels).mean())

    def save_samples(self, path: Path) -> Path:
        """Write the file that `mlscale loadtest samples=…` reads."""
        np.savez(path, raw=self.raw, labels=self.labels)
        return path


@dataclass(frozen=True, eq=False)
class LifecycleSamples:
    """The images of a tour.

    Attributes:
        traffic: training images: shifted, they are what production sends, and the retraining learns from.
        held_out: validation images. Shifted, they are never trained on: the proofs use them.
    """

    traffic: LabelledSamples
    held_out: LabelledSamples


def check_lifecycle_settings(shift: str, traffic: int) -> None:
    """Check the settings of the tour.

    Raises:
        MLScaleError: an unknown shift, or too little traffic for a retraining.
    """
    if shift not in SHIFTS:
        raise MLScaleError(
            f"unknown shift '{shift}'", where="lifecycle.shift", fix=f"lifecycle.shift={' or '.join(SHIFTS)}"
        )
    if traffic < 300:
        raise MLScaleError(
            f"lifecycle.traffic is {traffic}",
            where="lifecycle.traffic",
            why="a retraining needs 200 labelled samples at least, and a part of them is held out",
            fix="lifecycle.traffic=700",
        )


def load_lifecycle_samples(cfg: DictConfig, labels: tuple[str, ...], traffic: int) -> LifecycleSamples:
    """Return images of the config's data.

    Args:
        cfg: of a training run.
        labels: names of the classes, by number.
        traffic: how many training images, at most.

    Raises:
        MLScaleError: the data has no images, or the images are not of one size and square (for a turn).
    """
    from mlscale.assembly.run_parts import build_data
    from mlscale.config.composition.frozen import add_derived
    from mlscale.data.images.labelled_images import ImageData

    data = build_data(add_derived(cfg, {"per_device_batch": 1}))
    if not isinstance(data, ImageData):
        raise MLScaleError("the tour needs images", where="data", why="it shifts them", fix="data=digits")
    data.prepare_data()
    data.setup("validate")
    names = np.array(labels)

    def select_samples(split: str, most: int) -> LabelledSamples:
        decoded = data.get_decoded_split(split)
        # Evenly over the whole split: data sets are often sorted by class.
        rows = np.unique(np.linspace(0, len(decoded) - 1, min(most, len(decoded))).astype(np.int64))
        return LabelledSamples(
            np.stack([decoded.get_sample(row) for row in rows.tolist()]), names[decoded.labels[rows]]
        )

    return LifecycleSamples(select_samples("train", traffic), select_samples("val", _MAX_HELD_OUT))
