"""What is known of the data before a run, and what its loader promises."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Promises:
    """What a data module keeps.

    Args:
        order: the sequence of samples is a function of seed, epoch and data alone.
        resume: a run that goes on sees the samples that an unbroken run would have seen.
        elastic: another number of ranks sees the same global batches.
    """

    order: bool
    resume: bool
    elastic: bool


@dataclass(frozen=True)
class DataFacts:
    """What is derived from the data.

    Args:
        num_classes: classes of the training labels.
        channels: channels of a sample, 1 for grey and 3 for colour.
        height: pixels.
        width: pixels.
        train_samples: samples of the training split.
        val_samples: samples of the validation split.
        version: digest of what the data holds; the same on every machine and in every folder.
        class_names: names of the classes by label, None where labels are numbers.
        class_counts: training samples of each class.
        mean: mean of each channel of the training data, in the units of the decoded sample (0 to 255 for images).
        std: standard deviation of each channel, in the same units.
    """

    num_classes: int
    channels: int
    height: int
    width: int
    train_samples: int
    val_samples: int
    version: str
    class_names: tuple[str, ...] | None = None
    class_counts: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
