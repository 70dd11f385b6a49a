"""The facts of the data that are known before a run, and the guarantees of its loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Promises:
    """The guarantees of a data module.

    Args:
        order: the sequence of samples is a function of seed, epoch and data alone.
        resume: a resumed run sees the samples that an uninterrupted run would have seen.
        elastic: another number of ranks sees the same global batches.
    """

    order: bool
    resume: bool
    elastic: bool


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The facts that are derived from the data; None where a kind of data does not have one.

    Args:
        train_samples: samples of the training split.
        val_samples: samples of the validation split.
        version: digest of what the data holds; the same on every machine and in every folder.
        label_digest: digest of the labels of all splits; None where samples have none.
        sample: the shape of the `x` of one sample.
        dtype: of `x`: "float32", or "int64" for tokens.
        num_classes: classes of the training labels.
        channels: channels of an image, 1 for grey and 3 for colour.
        height: pixels.
        width: pixels.
        features: columns of a row of a table, as the model gets them.
        length: tokens of a sequence.
        vocab_size: how many tokens there are.
        tokenizer: digest of the tokenizer; None where tokens are bytes.
        bytes_per_token: bytes of text for each token of the validation split.
        document_end: the token that ends a document, where sequences hold whole documents and a model is not to read
            across them; None where it is.
        padding_share: of the places of training sequences.
        targets: numbers to predict for each sample.
        class_names: names of the classes by label, None where labels are numbers.
        class_counts: training samples of each class; of masks pixels.
        mean: mean of each channel of the training data, in the units of the decoded sample (0 to 255 for images).
        std: standard deviation of each channel, in the same units.
        decode_version: of the decoder of images (`mlscale.data.decoding.fast_decoder.DECODE_VERSION`).
        max_pixels: that a stored image may have.
        target_mean: mean of each number to predict over the training data, in its own units.
        target_std: standard deviation of each, 1 where it does not vary.
    """

    train_samples: int
    val_samples: int
    version: str
    sample: tuple[int, ...]
    dtype: str = "float32"
    num_classes: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    features: int | None = None
    length: int | None = None
    vocab_size: int | None = None
    tokenizer: str | None = None
    bytes_per_token: float | None = None
    document_end: int | None = None
    padding_share: float | None = None
    targets: int | None = None
    class_names: tuple[str, ...] | None = None
    class_counts: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    decode_version: int | None = None
    max_pixels: int | None = None
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    label_digest: str | None = None


def describe_facts(facts: Mapping[str, Any]) -> str:
    """Return a short text on a sample's shape and its targets.

    Args:
        facts: `DataFacts` as a mapping.
    """
    if facts.get("features"):
        words = [f"{facts['features']:,} features"]
    elif facts.get("length"):
        words = [f"sequences of {facts['length']:,}, {facts['vocab_size']:,} tokens"]
    else:
        # A scalar has the shape (), which would print as nothing.
        shape = "×".join(map(str, facts["sample"])) or "1"
        words = [shape if "×" in shape else f"{shape} values"]
    if classes := facts.get("num_classes"):
        words.append(f"{classes} classes")
    if targets := facts.get("targets"):
        words.append(f"{targets} target{'s' * (targets != 1)}")
    return ", ".join(words)
