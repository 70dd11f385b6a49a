"""Masks of images: a class number for each pixel, 255 for ignored pixels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mlscale.data.class_labels import Classes
from mlscale.data.decoding.fast_decoder import open_picture, read_indices
from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.decoding.resample import Box, ChooseBox, find_middle_box
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.shards.member_decoder import decode_value
from mlscale.data.shards.sample_source import SampleSource, read_encoded_image
from mlscale.errors import MLScaleError

Mask = NDArray[np.uint8]
IGNORED = 255
_MAX_CLASSES = 255  # classes: 0 to 254
_LOSSY = ("jpg", "jpeg", "webp")


@runtime_checkable
class MaskSource(SampleSource, Protocol):
    """Samples with a mask."""

    def read_label(self, sample: int) -> tuple[str, bytes]:
        """Return extension and bytes of a sample's mask. May be called by several threads."""

    def compute_label_checksums(self) -> NDArray[np.uint32]:
        """Return the CRC-32 of each mask, (n,)."""


class DecodedMasks:
    """The masks of a split, of the size that its images are brought to: by nearest neighbours, which adds no class.

    Where all of them fit into `memory` bytes each is decoded once and kept. Threads may read at once.

    Args:
        source: where they come from.
        classes: how many there are.
        shape: height and width of an image as the model gets it.
        size: pixels of the square that images are brought to; None where they are left as they are.
        memory: bytes that may be kept, 0 for none.
        max_pixels: of a mask or an image; see `decode_image`.
    """

    def __init__(
        self,
        source: MaskSource,
        *,
        classes: int,
        shape: tuple[int, int],
        size: int | None,
        memory: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._source, self._classes, self._shape, self._size = source, classes, shape, size
        self._max_pixels = max_pixels
        self._cached = (
            np.empty((len(source), *shape), np.uint8) if len(source) * shape[0] * shape[1] <= memory else None
        )
        self._is_cached = np.zeros(len(source), np.bool_)

    def get_cached_masks(self, samples: NDArray[np.int64]) -> Mask | None:
        """Return a new array (n, height, width) of these samples; None if one is not in memory."""
        return self._cached[samples] if self._cached is not None and self._is_cached[samples].all() else None

    def get_mask(self, sample: int, choose: ChooseBox | None = None) -> Mask:
        """Return one mask (height, width), to be read and not written to.

        Args:
            sample: its number.
            choose: the part of it that is brought to the shape; None for the same as ever.

        Raises:
            BadSample: it cannot be decoded, has an unknown class, or another size than its image.
        """
        if self._cached is None or (choose is not None and self._size is not None):
            return self._decode_resized(sample, choose)
        if not self._is_cached[sample]:
            self._cached[sample] = self._decode_resized(sample)
            # Only now: other threads read the row once this is set.
            self._is_cached[sample] = True
        cached: Mask = self._cached[sample]
        return cached if choose is None else resize_nearest(cached, choose(*self._shape, self._shape), self._shape)

    def _decode_resized(self, sample: int, choose: ChooseBox | None = None) -> Mask:
        mask = read_mask(self._source, sample, max_pixels=self._max_pixels)
        top = int(mask.max(where=mask != IGNORED, initial=0))
        if top >= self._classes:
            raise _build_mask_error(
                self._source, sample, f"a pixel has class {top}, and there are {self._classes} (from 0)"
            )
        # Image and mask are cut by one box, which is computed from the stored size of the image.
        whole = _read_image_size(self._source, sample, self._max_pixels) if self._size is not None else self._shape
        if mask.shape != whole:
            raise _build_mask_error(
                self._source, sample, f"it has {_format_size(mask.shape)} pixels, and its image {_format_size(whole)}"
            )
        if choose is None and self._size is None:
            return mask
        return resize_nearest(mask, (choose or find_middle_box)(*whole, self._shape), self._shape)


def count_pixels(
    source: MaskSource, *, threads: int, skip_bad: bool, max_pixels: int = MAX_PIXELS
) -> NDArray[np.int64]:
    """Return the number of pixels of each class, int64 (256,); the last are ignored. Every mask is decoded.

    Raises:
        BadSample: one cannot be, unless `skip_bad`.
    """

    def count_mask(sample: int) -> NDArray[np.int64]:
        try:
            counts: NDArray[np.int64] = np.bincount(
                read_mask(source, sample, max_pixels=max_pixels).ravel(), minlength=256
            )
        except BadSample:
            if not skip_bad:
                raise
            return np.zeros(256, np.int64)
        return counts

    total = np.zeros(256, np.int64)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for counts in pool.map(count_mask, range(len(source))):
            total += counts
    return total


def find_mask_classes(
    source: MaskSource,
    stated: int | Sequence[str] | None,
    *,
    threads: int,
    skip_bad: bool,
    where: str,
    max_pixels: int = MAX_PIXELS,
) -> Classes:
    """Return the classes of training masks: as stated, or as they occur; then `samples` counts their pixels.

    Raises:
        MLScaleError: fewer than two, or more than a byte holds.
    """
    if stated is not None:
        count, names = (stated, None) if isinstance(stated, int) else (len(stated), tuple(map(str, stated)))
        _check_class_count(
            count, "data.classes", "data.classes=[background,thing]; or null, to look at every training mask"
        )
        return Classes(count, names, ())
    # Ignored pixels are not a class.
    counts = count_pixels(source, threads=threads, skip_bad=skip_bad, max_pixels=max_pixels)[:IGNORED]
    # A number below the largest is a class even if no pixel has it: masks are not renumbered.
    count = int(np.flatnonzero(counts).max(initial=-1)) + 1
    _check_class_count(count, where, "write masks of two classes at least, 0 for the background")
    return Classes(count, None, tuple(counts[:count].tolist()))


def read_mask(source: MaskSource, sample: int, *, max_pixels: int = MAX_PIXELS) -> Mask:
    """Return one mask as it is stored, uint8 (height, width).

    Raises:
        BadSample: it cannot be decoded.
    """
    extension, content = source.read_label(sample)
    try:
        return decode_mask(content, extension, max_pixels=max_pixels)
    except Exception as error:
        raise _build_mask_error(source, sample, str(error) or type(error).__name__) from error


def decode_mask(content: bytes, extension: str, *, max_pixels: int = MAX_PIXELS) -> Mask:
    """Return class numbers, uint8 (height, width), of a picture of one channel or a palette, or of an array.

    Raises:
        ValueError: colours, a lossy format, or numbers that a byte does not hold.
        Exception: whatever a decoder raises.
    """
    last = extension.rsplit(".", 1)[-1]
    if last in _LOSSY:
        raise ValueError(f"a .{last} does not keep class numbers as they are: a PNG does")
    if is_image_file(extension):
        array: NDArray[Any] = read_indices(content, max_pixels=max_pixels)
    else:
        array = np.asarray(decode_value(content, extension))
        array = array[0] if array.ndim == 3 and len(array) == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "uib":
        raise ValueError(f"whole numbers of 2 dimensions are needed, and these are {array.dtype} {array.shape}")
    if array.dtype != np.uint8 and array.size and (array.min() < 0 or array.max() > IGNORED):
        raise ValueError(f"class numbers are 0 to 254, 255 for none, and these are {array.min()} to {array.max()}")
    return array.astype(np.uint8)


def resize_nearest(mask: Mask, box: Box, size: tuple[int, int]) -> Mask:
    """Return the part in `box`, resized to `size` (height, width) by its nearest pixels; a new array."""
    # The pixel under each output pixel's centre, in whole numbers, so that no machine rounds differently.
    rows = box.top + (2 * np.arange(size[0]) + 1) * box.height // (2 * size[0])
    columns = box.left + (2 * np.arange(size[1]) + 1) * box.width // (2 * size[1])
    return mask[rows[:, None], columns[None, :]]


def _read_image_size(source: SampleSource, sample: int, max_pixels: int) -> tuple[int, int]:
    extension, content = read_encoded_image(source, sample)
    if not is_image_file(extension):
        height, width = np.asarray(decode_value(content, extension)).shape[-2:]
        return int(height), int(width)
    # Reads the header alone.
    picture = open_picture(content, max_pixels=max_pixels)
    return picture.height, picture.width


def _check_class_count(count: int, where: str, fix: str) -> None:
    if not 2 <= count <= _MAX_CLASSES:
        raise MLScaleError(
            f"the masks have {count} class{'es' * (count != 1)}",
            where=where,
            why=f"2 to {_MAX_CLASSES} are possible",
            fix=fix,
        )


def _build_mask_error(source: MaskSource, sample: int, why: str) -> BadSample:
    extension, _ = source.read_label(sample)
    return BadSample(
        sample, source.get_key(sample), "has a mask that cannot be used", where=f"its .{extension}", why=why
    )


def _format_size(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]}×{shape[-2]}"
