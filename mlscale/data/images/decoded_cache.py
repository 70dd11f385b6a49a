"""Decoded samples of one split, kept in memory where they are small enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.image_decoder import Report
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.decoding.resample import ChooseBox
from mlscale.data.images.masks import DecodedMasks
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.shards.member_decoder import Array, decode_sample, resize_array
from mlscale.data.shards.sample_source import LocatedSource, SampleSource, TarSource, read_encoded_image
from mlscale.errors import MLScaleError


@dataclass(frozen=True)
class SampleShape:
    """The properties that all decoded samples of a run have in common.

    Args:
        channels: 1 for grey, 3 for colour; grey images among coloured ones are repeated into three.
        height: pixels.
        width: pixels.
        dtype: uint8 for images, uint8 or float32 for arrays.
        mean: mean of each channel over the probed samples, in the units of the sample.
        std: standard deviation of each channel, 1 where a channel does not vary.
    """

    channels: int
    height: int
    width: int
    dtype: np.dtype[np.generic]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of one decoded sample."""
        return self.channels * self.height * self.width * self.dtype.itemsize


def iterate_single_samples(source: SampleSource, size: int | None, max_pixels: int) -> Iterator[Array | BadSample]:
    """Yield each sample of a source, decoded by itself, or its error: data without a readable one has no shape."""
    for sample in range(len(source)):
        try:
            yield decode_from_source(source, sample, None if size is None else (size, size), max_pixels=max_pixels)
        except BadSample as error:
            yield error


def decode_from_source(
    source: SampleSource,
    sample: int,
    size: tuple[int, int] | None,
    channels: int | None = None,
    choose: ChooseBox | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    report: Report | None = None,
) -> Array:
    """Return one sample, uint8 or float32 of shape (channels, height, width); see `decode_sample`.

    Raises:
        BadSample: it cannot be decoded; with its shard and key.
    """
    extension, content = read_encoded_image(source, sample)
    return decode_stored(
        source, sample, extension, content, size, channels, choose, max_pixels=max_pixels, report=report
    )


def decode_stored(
    source: SampleSource,
    sample: int,
    extension: str,
    content: bytes,
    size: tuple[int, int] | None,
    channels: int | None = None,
    choose: ChooseBox | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    report: Report | None = None,
) -> Array:
    """Return one sample of which extension and bytes were read; see `decode_from_source`."""
    try:
        return decode_sample(content, extension, size, channels, choose, max_pixels=max_pixels, report=report)
    except Exception as error:
        raise BadSample(
            sample,
            source.get_key(sample),
            where=describe_place(source, sample, len(content)),
            why=str(error) or type(error).__name__,
        ) from error


def describe_place(source: SampleSource, sample: int, size: int) -> str:
    """Return where an image of `size` bytes is, for errors: its row in a table, its member of a tar."""
    if isinstance(source, LocatedSource):
        return source.locate_sample(sample)
    # A file of a folder is named by the sample's key, and a source of another package need not have parts at all.
    part = source.describe_image(sample) if isinstance(source, TarSource) else "image"
    return f"its {part} of {size} bytes"


class DecodedSamples:
    """Samples of a split as arrays of one shape.

    Where all of them fit into `memory` bytes each is decoded once and kept, so that later epochs cost a copy; a batch
    holds the same values either way. Threads may read at once: rows are independent, and a row decoded twice is written
    twice.

    Args:
        source: where samples come from.
        labels: class numbers, int64 (n,); or 1 where a sample has a class, uint8 (n, classes); empty with masks.
        shape: shape and scale of the samples.
        size: see `decode_image`.
        memory: bytes that may be kept, 0 for none.
        where: the key path of the split, for errors.
        masks: the class of each pixel, where that is what is learned.
        max_pixels: of a stored image; see `decode_image`.

    Attributes:
        tolerated: the samples that were decoded although a strict decoder warned, by number, with its harmless warning.
    """

    def __init__(
        self,
        source: SampleSource,
        labels: NDArray[np.int64] | NDArray[np.uint8],
        shape: SampleShape,
        *,
        size: int | None,
        memory: int,
        where: str,
        masks: DecodedMasks | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.source, self.labels, self.shape, self.masks = source, labels, shape, masks
        self._size, self._where, self._max_pixels = size, where, max_pixels
        self.tolerated: dict[int, str] = {}
        self._cached: Array | None = None
        if len(source) * shape.nbytes <= memory:
            # Pages are only taken from the system once they are written to.
            self._cached = np.empty((len(source), shape.channels, shape.height, shape.width), shape.dtype)
        self._is_cached = np.zeros(len(source), np.bool_)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def is_kept_whole(self) -> bool:
        """True once every sample is in memory."""
        return self._cached is not None and bool(self._is_cached.all())

    def get_cached_samples(self, samples: NDArray[np.int64]) -> Array | None:
        """Return a new array (n, channels, height, width) of these samples; None if one is not in memory."""
        return self._cached[samples] if self._cached is not None and self._is_cached[samples].all() else None

    def get_sample(self, sample: int, choose: ChooseBox | None = None) -> Array:
        """Return one sample (channels, height, width), to be read and not written to.

        Args:
            sample: its number.
            choose: the part of it that is brought to the shape; None for the same as ever.
        """
        # What is kept is the stored image itself where none was resized, so that a part of it may be chosen.
        if self._cached is None or (choose is not None and self._size is not None):
            return self._decode_sample(sample, choose)
        if not self._is_cached[sample]:
            self._cached[sample] = self._decode_sample(sample)
            # Only now: other threads read the row once this is set.
            self._is_cached[sample] = True
        cached: Array = self._cached[sample]
        return cached if choose is None else resize_array(cached, choose, self._dimensions[1:])

    def list_keys(self, samples: Sequence[int]) -> list[str]:
        """Return the names of these samples."""
        return [self.source.get_key(sample) for sample in samples]

    @property
    def _dimensions(self) -> tuple[int, int, int]:
        return self.shape.channels, self.shape.height, self.shape.width

    def _decode_sample(self, sample: int, choose: ChooseBox | None = None) -> Array:
        size = self._dimensions[1:] if choose is not None or self._size is not None else None
        array = decode_from_source(
            self.source,
            sample,
            size,
            self.shape.channels,
            choose,
            max_pixels=self._max_pixels,
            report=partial(self.tolerated.__setitem__, sample),
        )
        if array.shape != self._dimensions:
            raise MLScaleError(
                f"the sample {self.source.get_key(sample)} has another size than the training data",
                where=self._where,
                why=f"{format_size(array.shape)} pixels, not {format_size(self._dimensions)}",
                fix=f"data.image_size={min(224, *self._dimensions[1:])}",
            )
        return array


def format_size(shape: tuple[int, ...]) -> str:
    """Return width × height of (…, height, width), as errors have it."""
    return f"{shape[-1]}×{shape[-2]}"
