"""The user's choices about the samples of training, apart from where they come from, in one object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError

EXECUTORS = ("thread", "process", "auto")
"""The last was a word of earlier runs, and means the first."""
_REPLAY = 0.7
_MAX_SHARE_PARTS = 10_000
"""Parts that shares may be of: 0.0001 is the smallest step between them."""


class PolicyArguments(TypedDict, total=False):
    """The fields of `Policy` as arguments of a data class: `**policy: Unpack[PolicyArguments]`."""

    batch_size: int
    seed: int
    augment: object
    sampling: str
    weights: str | None
    epoch_samples: int | None
    last: str
    windows: Sequence[str]
    replay: float | None
    relabelled: Sequence[str]
    executor: str


class TolerantPolicyArguments(PolicyArguments, total=False):
    """The same for data that may have samples which can't be used."""

    on_bad_sample: str


@dataclass(frozen=True)
class Policy:
    """Choices that every kind of data offers.

    Args:
        batch_size: samples of one optimizer step, over all ranks and forward passes.
        seed: of order and augmentation; not of a split.
        augment: `Augment`, or a callable on one sample; training only.
        sampling: 'shuffle' gives each sample once an epoch; 'balanced' every class equally often; 'weighted' each
            sample in proportion to its weight.
        weights: for 'weighted': a CSV file of key,weight lines, or the extension of a member that holds a number.
        epoch_samples: samples of an epoch; None for as many as the training data has.
        last: of an epoch's last global batch that is not full: 'drop' leaves it out, 'pad' fills it up by samples of
            weight 0.
        on_bad_sample: 'fail' ends the run at a sample that cannot be read; 'skip' replaces it, with weight 0.
        windows: folders of labelled samples of production, the latest last, that retraining cycles have written: they
            are mixed with the data, and validate in its place. The encoder stays that of the data.
        replay: the share of samples in training that are not of the latest window; 0.7 where it is None; 0 for none.
        relabelled: names of classes whose meaning has changed: no sample of them is replayed.
        executor: where Python code of a user's own works on samples: 'thread' in this process, 'process' in others. The
            batches are the same.

    Raises:
        MLScaleError: an unknown value, a number out of range, or a choice that contradicts another.
    """

    batch_size: int = 64
    seed: int = 0
    augment: object = None
    sampling: str = "shuffle"
    weights: str | None = None
    epoch_samples: int | None = None
    last: str = "drop"
    on_bad_sample: str = "fail"
    windows: Sequence[str] = ()
    replay: float | None = None
    relabelled: Sequence[str] = ()
    executor: str = "thread"

    def __post_init__(self) -> None:
        _check_choice("sampling", self.sampling, ("shuffle", "balanced", "weighted"))
        _check_choice("last", self.last, ("drop", "pad"))
        _check_choice("on_bad_sample", self.on_bad_sample, ("fail", "skip"))
        _check_choice("executor", self.executor, EXECUTORS)
        if self.epoch_samples is not None and self.epoch_samples < 1:
            raise MLScaleError(
                f"data.epoch_samples is {self.epoch_samples}",
                where="data.epoch_samples",
                why="it is a number of samples, or null for as many as the training data has",
                fix="data.epoch_samples=null",
            )
        if self.sampling == "weighted" and self.weights is None:
            raise MLScaleError(
                "weighted sampling has no weights",
                where="data.weights",
                why="each sample is drawn in proportion to its weight",
                fix="data.weights=weights.csv   (lines of key,weight), or a member's extension: data.weights=weight",
            )
        # A setting without effect is an error: else a forgotten `sampling=weighted` would go unnoticed.
        if self.weights is not None and self.sampling != "weighted":
            raise MLScaleError(
                f"data.weights has no effect with data.sampling={self.sampling}",
                where="data.weights",
                fix="data.sampling=weighted",
            )
        self._check_windows()

    def _check_windows(self) -> None:
        if not self.windows and (self.replay is not None or self.relabelled):
            key = "replay" if self.replay is not None else "relabelled"
            raise MLScaleError(
                f"data.{key} has no effect without data.windows",
                where=f"data.{key}",
                why="it is about the samples that are mixed with a window of production",
                fix="data.windows=[<the folder of a retraining cycle>]",
            )
        if not 0 <= self.replay_share < 1:
            raise MLScaleError(
                f"data.replay is {self.replay}", where="data.replay", why="it is a share below 1", fix="data.replay=0.7"
            )
        if self.windows and self.sampling != "shuffle":
            raise MLScaleError(
                f"windows are mixed by share and not by data.sampling={self.sampling}",
                where="data.sampling",
                why="data.replay and the shares of classes or samples contradict each other",
                fix="data.sampling=shuffle data.weights=null",
            )

    @property
    def replay_share(self) -> float:
        """The share of samples in training that are not of the latest window."""
        return _REPLAY if self.replay is None else self.replay

    @property
    def pad(self) -> bool:
        """True if the last global batch is filled up."""
        return self.last == "pad"

    @property
    def skip(self) -> bool:
        """True if bad samples are replaced."""
        return self.on_bad_sample == "skip"


def normalise_shares(mix: Mapping[str, float], sources: Mapping[str, object]) -> NDArray[np.int64]:
    """Return the shares of sources as whole numbers without a common divisor, in the order of `sources`, int64 (k,).

    Raises:
        MLScaleError: the names differ from those of the sources, a share is not positive, or they have too fine a
            common part.
    """
    lacking, unknown = [n for n in sources if n not in mix], [n for n in mix if n not in sources]
    if lacking or unknown:
        even = ",".join(f"{name}: {mix.get(name, 1):g}" for name in sources)
        raise MLScaleError(
            "the shares of data.mix are not those of the sources in data.train",
            where="data.mix",
            why="; ".join(
                [f"without a share: {', '.join(lacking)}"] * bool(lacking)
                + [f"no source of that name: {', '.join(unknown)}"] * bool(unknown)
            ),
            fix=f"'data.mix={{{even}}}'",
        )
    for name, share in mix.items():
        # bool is a subclass of int, so `true` would count as 1.
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
            raise MLScaleError(
                f"the share of {name!r} is {share!r}",
                where=f"data.mix.{name}",
                why="a share is a number above 0; shares count relative to each other",
                fix=f"data.mix.{name}=1, or take {name} out of data.train and data.mix",
            )
    # By their decimal digits: 0.1 is 1/10 here, and not the nearest binary fraction.
    exact = [Fraction(str(mix[name])) for name in sources]
    unit = math.lcm(*(share.denominator for share in exact))
    whole = [int(share * unit) for share in exact]
    # The sum of the shares is the length of the pattern that `Mixed` repeats, so they are as small as can be.
    divisor = math.gcd(*whole)
    shares = (
        np.array([share // divisor for share in whole], np.int64) if sum(whole) // divisor <= _MAX_SHARE_PARTS else None
    )
    if shares is None:
        # Percent, and at least 1, because a share of 0 is refused.
        rounded = [max(1, round(float(share / sum(exact)) * 100)) for share in exact]
        near = ",".join(f"{name}: {share}" for name, share in zip(sources, rounded, strict=True))
        raise MLScaleError(
            f"the shares of data.mix are parts of {sum(whole) // divisor:,}",
            where="data.mix",
            why=f"they are kept exactly in every {_MAX_SHARE_PARTS:,} samples, "
            f"so they are parts of {_MAX_SHARE_PARTS:,} at most",
            fix=f"'data.mix={{{near}}}'",
        )
    return shares


def _check_choice(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise MLScaleError(
            f"data.{name} is {value!r}",
            where=f"data.{name}",
            why=f"it is one of: {', '.join(words)}",
            fix=f"data.{name}={words[0]}",
        )
