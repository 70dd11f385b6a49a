"""The operations on images that DALI applies to a sample: their codes and numbers, without DALI itself."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VALUES = 6
"""Numbers that an operation may have."""


class Kind(IntEnum):
    """The operations; the numbers that each takes are in brackets."""

    NOTHING = 0
    NEAREST = 1
    """Each pixel is taken from another place, by the nearest one [matrix, 6]."""
    BILINEAR = 2
    """The same, interpolated and rounded [matrix, 6]."""
    SMOOTH = 3
    """The same, not rounded [matrix, 6]."""
    BRIGHTNESS = 4
    """[factor]"""
    CONTRAST = 5
    """[factor]"""
    SATURATION = 6
    """[factor]"""
    SHARPNESS = 7
    """[factor]"""
    POSTERIZE = 8
    """[step between the levels that are left]"""
    SOLARIZE = 9
    """[threshold]"""
    AUTOCONTRAST = 10
    EQUALIZE = 11
    INVERT = 12
    GREY = 13
    FILLED = 15
    """As `BILINEAR`, where torchvision fills the outside with black by itself [matrix, 6]."""
    GREY_CONTRAST = 14
    """Contrast of an image of one channel [factor]."""


MOVES = frozenset({Kind.NEAREST, Kind.BILINEAR, Kind.FILLED, Kind.SMOOTH})
"""Operations that don't commute with a mirror image."""

WITHOUT_VALUES = frozenset({Kind.NOTHING, Kind.AUTOCONTRAST, Kind.EQUALIZE, Kind.INVERT, Kind.GREY})
"""Operations that take no numbers."""


class Operation(NamedTuple):
    """One operation on one sample."""

    kind: Kind
    values: Sequence[float] = ()

    def build_array(self) -> NDArray[np.float32]:
        """Return its numbers, filled up with zeros: float32 (VALUES,)."""
        # Of one length, whatever the operation: an input of a pipeline has one shape.
        array = np.zeros(VALUES, np.float32)
        array[: len(self.values)] = self.values
        return array


NOTHING = Operation(Kind.NOTHING)


class ImageChanges(NamedTuple):
    """The changes of one image, once it has its size.

    Args:
        mirror: left and right are swapped, at the end.
        operations: what else, in order.
    """

    mirror: bool = False
    operations: Sequence[Operation] = ()
