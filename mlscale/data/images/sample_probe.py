"""Shape, mean and deviation of a data set's images, from some of them."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mlscale import contracts
from mlscale.data.cache_folder import get_cache_dir, write_file_aside
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.images.decoded_cache import SampleShape, decode_stored, format_size
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.shards.member_decoder import Array
from mlscale.data.shards.sample_source import SampleSource, read_encoded_image
from mlscale.errors import MLScaleError

PROBED = 512
"""Samples of the training split, evenly spread, that determine shape, channels, mean and standard deviation."""
_PART_SAMPLES = 16
"""Samples that a thread takes at a time."""
T = TypeVar("T")


class NoReadableSampleError(MLScaleError):
    """None of the samples that show what a data set holds can be decoded.

    Args:
        first: the error of the first.
        probed: how many were tried.
        where: the key path of the split.
    """

    def __init__(self, first: BadSample, probed: int, where: str) -> None:
        super().__init__(
            f"none of {probed} training samples, evenly spread, can be decoded",
            where=where,
            why=f"the first is {first.key}: {first.why}",
            fix="mlscale data verify <the same words>, which names every bad sample; or another data.train",
        )


class DifferentSizesError(MLScaleError):
    """Images have several sizes, and none is set.

    Args:
        common_size: one that fits them.
        why: two of them.
        where: the key path of the split.
    """

    def __init__(self, common_size: int, why: str, where: str) -> None:
        super().__init__("the images differ in size", where=where, why=why, fix=f"data.image_size={common_size}")
        self.common_size = common_size


class _Probe(NamedTuple):
    """A sample that was decoded, and the mark of its bytes."""

    sample: int
    array: Array
    mark: ImageMark


def probe_shape(
    source: SampleSource,
    *,
    size: int | None,
    threads: int,
    where: str,
    skip_bad: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> SampleShape:
    """Return the shape of `PROBED` samples, evenly spread: the same ones on every rank, so results are equal.

    Samples that were decoded by an earlier process, with the same settings, are read and not decoded again.

    Raises:
        BadSample: a sample cannot be decoded, without `skip_bad`.
        NoReadableSampleError: none of them can.
        DifferentSizesError: they have several sizes, and `size` is None.
        MLScaleError: they differ in their channels.
    """
    picks = np.unique(np.linspace(0, len(source) - 1, PROBED).astype(np.int64)).tolist()
    saved = SavedProbe(source.version, (len(picks), size, max_pixels))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        # Without a saved result nothing is read twice.
        if saved.exists and (shape := saved.load(_map_parts(pool, partial(_read_mark, source), picks))) is not None:
            return shape
        decoded = _map_parts(pool, partial(_decode_probe, source, size, max_pixels), picks)
    probes = _select_readable(decoded, where, skip_bad)
    shape = _find_shape(source, probes, where)
    # With bad samples left out it would hide them from a run that doesn't skip them.
    if len(probes) == len(picks):
        saved.save([probe.mark for probe in probes], shape)
    return shape


def _map_parts(pool: ThreadPoolExecutor, function: Callable[[int], T], samples: Sequence[int]) -> list[T]:
    """Return the results of a function of each sample, in order."""
    # Handing over each by itself takes as long as reading it.
    parts = [samples[start : start + _PART_SAMPLES] for start in range(0, len(samples), _PART_SAMPLES)]
    return [result for results in pool.map(lambda part: list(map(function, part)), parts) for result in results]


def _decode_probe(source: SampleSource, size: int | None, max_pixels: int, sample: int) -> _Probe | BadSample:
    """Return a decoded sample, or its error."""
    square = None if size is None else (size, size)
    try:
        extension, content = read_encoded_image(source, sample)
        array = decode_stored(source, sample, extension, content, square, max_pixels=max_pixels)
    except BadSample as error:
        return error
    return _Probe(sample, array, compute_image_mark(extension, content))


def _read_mark(source: SampleSource, sample: int) -> ImageMark | None:
    """Return the mark of a sample; None where its bytes are known to be wrong."""
    try:
        return compute_image_mark(*read_encoded_image(source, sample))
    except BadSample:
        return None


def _select_readable(decoded: Sequence[_Probe | BadSample], where: str, skip_bad: bool) -> list[_Probe]:
    """Return the samples that could be decoded."""
    bad = [result for result in decoded if isinstance(result, BadSample)]
    # In the order of samples, so every rank raises the error of the same one.
    if bad and not skip_bad:
        raise bad[0]
    if len(bad) == len(decoded):
        raise NoReadableSampleError(bad[0], len(bad), where)
    return [result for result in decoded if isinstance(result, _Probe)]


def _find_shape(source: SampleSource, probes: Sequence[_Probe], where: str) -> SampleShape:
    """Return the shape that decoded samples have in common; see `probe_shape` for the errors."""
    arrays = [probe.array for probe in probes]
    channels = max(array.shape[0] for array in arrays)
    first = arrays[0]
    for probe in probes:
        if probe.array.shape[1:] != first.shape[1:]:
            pair = [(probes[0].sample, first.shape), (probe.sample, probe.array.shape)]
            why = ", ".join(f"{source.get_key(sample)} has {format_size(shape)} pixels" for sample, shape in pair)
            raise DifferentSizesError(_choose_common_size(arrays), why, where)
    # Grey images among coloured ones are repeated into three channels; other mixtures are mistakes.
    mixed = {array.shape[0] for array in arrays} - {channels}
    if mixed and mixed != {1}:
        raise MLScaleError(
            f"the samples differ in their channels: {sorted(mixed | {channels})}",
            where=where,
            fix="write all samples with the same number of channels",
        )
    mean, std = _compute_scale(arrays, channels)
    return SampleShape(channels, first.shape[1], first.shape[2], first.dtype, mean, std)


def _compute_scale(arrays: Sequence[Array], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel over all arrays."""
    # Exact for uint8, whatever the order: sums of whole numbers.
    kind = np.int64 if arrays[0].dtype == np.uint8 else np.float64
    total, squares = np.zeros(channels, kind), np.zeros(channels, kind)
    for array in arrays:
        own_total, own_squares = _sum_channels(array, channels, kind)
        total += own_total
        squares += own_squares
    values = len(arrays) * arrays[0].shape[1] * arrays[0].shape[2]
    mean = total / values
    # Rounding can give a variance slightly below 0.
    std = np.sqrt(np.maximum(squares / values - mean**2, 0.0))
    # Samples are divided by it.
    std[std == 0] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())


def _sum_channels(array: Array, channels: int, kind: type[np.int64 | np.float64]) -> tuple[Array, Array]:
    """Return the sum of each channel's values, and of their squares; those of a grey image for every channel."""
    if array.dtype == np.uint8 and kind is np.int64:
        # float64 is exact below 2^53, which no image reaches, and several times as fast as int64.
        wide = np.ascontiguousarray(array).reshape(len(array), -1).astype(np.float64)
        sums = np.stack([wide.sum(1), np.einsum("ij,ij->i", wide, wide)]).astype(np.int64)
        total, squares = np.broadcast_to(sums, (2, channels))
        return total, squares
    wide = np.broadcast_to(array, (channels, *array.shape[1:])).astype(kind)
    return wide.sum(axis=(1, 2)), (wide * wide).sum(axis=(1, 2))


def _choose_common_size(arrays: Sequence[Array]) -> int:
    """Return a size for images of several sizes: the median shorter side, in steps of 32 as networks halve it.

    Of small ones it is the shortest side: no image is enlarged.
    """
    sides = [min(array.shape[1:]) for array in arrays]
    median = int(np.median(sides))
    return round(median / 32) * 32 if median >= 64 else min(sides)


_FORMAT = 2
_DECODERS = ("numpy", "pillow", "simplejpeg", "torch")
"""Packages whose next version may decode some image to other pixels."""
_MIN_BYTES = 1 << 20
"""Images of less, all together, are decoded about as quickly as they are compared."""

ImageMark = tuple[str, int, int]
"""Extension, bytes and CRC-32 of an image."""


def compute_image_mark(extension: str, content: bytes) -> ImageMark:
    """Return the mark of an image, by which it is recognised."""
    return extension, len(content), zlib.crc32(content)


class SavedProbe:
    """The shape of images that were decoded before, in the cache of this machine.

    Args:
        data_version: of their split.
        settings: numbers on which the result depends besides.
    """

    def __init__(self, data_version: str, settings: Sequence[int | None]) -> None:
        named = json.dumps([_FORMAT, DECODE_VERSION, *map(_find_version, _DECODERS), data_version, *settings])
        # Next to the indexes, which are made again, too, where they are missing.
        self._path = get_cache_dir() / "index" / f"probe-{hashlib.sha256(named.encode()).hexdigest()[:32]}.json"

    @property
    def exists(self) -> bool:
        """True if something is saved."""
        return self._path.is_file()

    def load(self, marks: Sequence[ImageMark | None]) -> SampleShape | None:
        """Return the shape that was saved; None if it was of other images, or the file is corrupt."""
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            images = [tuple(mark) for mark in saved["images"]]
            if images != marks or saved["sha256"] != contracts.compute_checksum(saved):
                return None
            stated = saved["shape"]
            scale = {name: tuple(map(float, stated[name])) for name in ("mean", "std")}
            return SampleShape(**{**stated, "dtype": np.dtype(stated["dtype"]), **scale})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, marks: Sequence[ImageMark], shape: SampleShape) -> None:
        """Write the shape of images, unless they are small."""
        if sum(size for _, size, _ in marks) < _MIN_BYTES:
            return
        document: dict[str, Any] = {"images": marks, "shape": {**asdict(shape), "dtype": shape.dtype.name}}
        document["sha256"] = contracts.compute_checksum(document)
        # A cache that cannot be written costs time, not the run.
        with suppress(OSError):
            write_file_aside(self._path, json.dumps(document).encode())


def _find_version(package: str) -> str:
    """Return the version of a package, without importing it; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
