"""A difference between two encoders, and what is likely to have caused it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Cause(StrEnum):
    """A likely cause, in the words of a message."""

    CATEGORY_ORDER = "the categories are in another order"
    OTHER_CATEGORIES = "one of the two does not know the category, or writes it in another way"
    MISSING_VALUE = "a missing value is filled or flagged in another way"
    MEAN_OR_STD = "another mean or standard deviation"
    UNIT = "another unit or scale"
    OTHER_COLUMN = "a column is mistaken for another"
    CHANNEL_ORDER = "the channels are in another order (RGB against BGR)"
    NORMALISATION = "another mean or standard deviation of the channels"
    RESIZE_FILTER = "another filter resizes the image"
    CROP = "another part of the image is taken, or it is brought to another size"
    ORIENTATION = "the image is turned or mirrored: its stated orientation"
    DECODER = "another decoder, or other rounding, of a few levels"
    BYTE_OR_CHARACTER = "characters are read as bytes"
    OFFSET = "another number is added to each byte"
    PADDING = "another padding, or on the other side"
    LENGTH = "texts are cut at another length"
    UNKNOWN = "not known"


class Finding(NamedTuple):
    """The first position that differs.

    Args:
        position: the column, channel or token, in words.
        row: of the sample.
        values: those there, as text: training's, then the servable's.
        cause: the most likely one.
        detail: of the cause, in words; '' for none.
    """

    position: str
    row: int
    values: tuple[str, str]
    cause: Cause
    detail: str = ""


@dataclass(frozen=True)
class EncoderDifference:
    """How a servable encodes a sample otherwise than training.

    Attributes:
        position: the first column, channel or token that differs.
        key: the sample's name.
        trained: what training has there.
        exported: what the servable has.
        cause: likely.
        detail: of the cause; '' for none.
        in_graph: the part of the encoder that is inside the graph differs; else the one before it.
    """

    position: str
    key: str
    trained: str
    exported: str
    cause: Cause
    detail: str
    in_graph: bool

    def __str__(self) -> str:
        where = "the graph encodes" if self.in_graph else "the servable encodes"
        detail = f" ({self.detail})" if self.detail else ""
        return (
            f"{where} {self.position} of {self.key} as {self.exported}, and training as {self.trained}: "
            f"likely {self.cause}{detail}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the difference for parity.json."""
        # The cause is stored by its name: its words may be improved, and a stored parity.json must stay readable.
        names = ("position", "key", "trained", "exported", "detail", "in_graph")
        return {**{name: getattr(self, name) for name in names}, "cause": self.cause.name.lower()}


def are_close(first: NDArray[Any], second: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """Return which values agree: floats within a share of the first, at least of 1; others are equal."""
    if first.dtype.kind != "f" and second.dtype.kind != "f":
        return np.asarray(first == second)
    # The difference of two infinities is NaN, of which numpy would warn.
    with np.errstate(invalid="ignore"):
        close = np.abs(first - second) <= share * np.maximum(1.0, np.abs(first))
    return np.asarray(close | (np.isnan(first) & np.isnan(second)))


def fit_line(x: Numbers, y: Numbers) -> tuple[float, float] | None:
    """Return slope and offset of y as a function of x; None where it is not a line, or x has one value alone."""
    # A line through points of one x has any slope: it would explain every difference.
    if len(x) < 2 or np.ptp(x) <= 1e-9 * max(1.0, float(np.abs(x).max())):
        return None
    slope, offset = np.polyfit(x, y, 1)
    # A bound relative to y: the tensors are float32, whose rounding grows with the values.
    if not np.allclose(slope * x + offset, y, rtol=0, atol=2e-5 * max(1.0, float(np.abs(y).max()))):
        return None
    return float(slope), float(offset)


def format_values(values: NDArray[Any] | Sequence[Any]) -> str:
    """Return a few values as text."""
    flat = np.asarray(values).ravel().tolist()
    shown = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in flat[:8]]
    if len(flat) == 1:
        return shown[0]
    return f"[{', '.join(shown)}{', …' if len(flat) > len(shown) else ''}]"
