"""The inputs of DALI's pipeline for a batch: encoded images, the part of each that is taken, and its changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.dali.operations import NOTHING, WITHOUT_VALUES, ImageChanges, Kind
from mlscale.data.dali.recorded_transforms import AugmentationPlan
from mlscale.data.decoding import jpeg
from mlscale.data.decoding.fast_decoder import JpegPicture, open_picture
from mlscale.data.decoding.resample import Box, ChooseBox, find_middle_box
from mlscale.data.images.decoded_cache import DecodedSamples
from mlscale.data.shards.sample_source import read_encoded_image

Encoded = NDArray[np.uint8]


class SampleInput(NamedTuple):
    """One encoded image, uint8 (bytes,), and the part of it that is decoded."""

    content: Encoded
    box: Box


@dataclass(frozen=True)
class BatchInputs:
    """The inputs of a pipeline for one batch.

    Attributes:
        samples: the images.
        changes: of each.
    """

    samples: Sequence[SampleInput]
    changes: Sequence[ImageChanges]

    @property
    def kinds(self) -> frozenset[Kind]:
        """The operations that occur."""
        return frozenset(operation.kind for change in self.changes for operation in change.operations)

    @property
    def steps(self) -> int:
        """The most operations of one sample."""
        return max(len(change.operations) for change in self.changes)

    def list_arrays(self, steps: int, kinds: frozenset[Kind]) -> dict[str, list[NDArray[np.generic]]]:
        """Return the arrays of each input of a pipeline by its name, one a sample.

        Args:
            steps: operations of a sample that the pipeline computes; samples with fewer do nothing more.
            kinds: its operations.
        """
        arrays: dict[str, list[NDArray[np.generic]]] = {
            "images": [sample.content for sample in self.samples],
            "starts": [np.array((sample.box.top, sample.box.left), np.int64) for sample in self.samples],
            "shapes": [np.array((sample.box.height, sample.box.width), np.int64) for sample in self.samples],
            # DALI takes whole numbers for yes and no.
            "mirrors": [np.array(change.mirror, np.int32) for change in self.changes],
        }
        for step in range(steps):
            chosen = [(*change.operations, *[NOTHING] * steps)[step] for change in self.changes]
            arrays[f"kinds{step}"] = [np.array(operation.kind, np.int32) for operation in chosen]
            # DALI removes an input that nothing uses.
            if not kinds <= WITHOUT_VALUES:
                arrays[f"values{step}"] = [operation.build_array() for operation in chosen]
        return arrays


class InputReader:
    """Reads what DALI is fed.

    JPEGs are given to it as they are stored. Images of other formats, and JPEGs that the strict decoder treats in a way
    of its own, are decoded and brought to their size by mlscale, and given to it as plain pixels.

    Args:
        data: the split.
        plan: what is done to the samples.
        max_pixels: that a stored image may have.
        is_resized: images are brought to the shape of the data; else they have it.
    """

    def __init__(self, data: DecodedSamples, plan: AugmentationPlan, *, max_pixels: int, is_resized: bool) -> None:
        self._data, self._plan, self._max_pixels = data, plan, max_pixels
        self._is_resized = is_resized
        self._size = data.shape.height, data.shape.width

    def choose_parts(self, seeds: NDArray[np.uint64]) -> Sequence[ChooseBox | None]:
        """Return what chooses the part of each image."""
        return self._plan.choose_parts(seeds)

    def choose_changes(self, seeds: NDArray[np.uint64]) -> Sequence[ImageChanges]:
        """Return what is changed in each image once it has its size."""
        return self._plan.choose_changes(seeds)

    def read_stored(self, sample: int, choose: ChooseBox | None) -> SampleInput:
        """Return one sample as it is stored where DALI decodes it as mlscale does, else its pixels.

        Raises:
            BadSample: it can't be decoded.
        """
        # By its first bytes: names of files may be wrong.
        _, content = read_encoded_image(self._data.source, sample)
        picture = self._open_jpeg(content) if content.startswith(jpeg.START) else None
        if picture is None:
            return self.read_pixels(sample, choose)
        whole = (picture.height, picture.width)
        if self._is_resized or choose is not None:
            return SampleInput(np.frombuffer(content, np.uint8), (choose or find_middle_box)(*whole, self._size))
        # An image of another size than the data's is an error, which is raised where it is decoded.
        if whole != self._size:
            return self.read_pixels(sample, choose)
        return SampleInput(np.frombuffer(content, np.uint8), Box(0, 0, *whole))

    def read_pixels(self, sample: int, choose: ChooseBox | None) -> SampleInput:
        """Return one sample as mlscale decodes it, of its size.

        Raises:
            BadSample: it can't be decoded.
        """
        return SampleInput(encode_pixels(self._data.get_sample(sample, choose)), Box(0, 0, *self._size))

    def _open_jpeg(self, content: bytes) -> JpegPicture | None:
        """Return a JPEG whose header is read, if DALI may decode it."""
        # A file that is cut off: DALI would not notice where the part that it decodes is complete.
        if not content.endswith(jpeg.END):
            return None
        try:
            picture = open_picture(content, max_pixels=self._max_pixels)
        except Exception:  # whatever a decoder raises: it is raised again, as a bad sample, where it is decoded
            return None
        # A colour image among grey ones is an error that is raised where it is decoded, too.
        is_plain = isinstance(picture, JpegPicture) and (self._data.shape.channels == 3 or picture.grey)
        return picture if isinstance(picture, JpegPicture) and is_plain else None


def encode_pixels(pixels: NDArray[np.generic]) -> Encoded:
    """Return pixels (channels, height, width) as a PNM file, uint8 (bytes,): the simplest format that DALI reads."""
    channels, height, width = pixels.shape
    header = f"P{5 if channels == 1 else 6}\n{width} {height}\n255\n".encode()
    # The bytes of a pixel lie together in the file.
    together = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return np.concatenate([np.frombuffer(header, np.uint8), together.reshape(-1).view(np.uint8)])
