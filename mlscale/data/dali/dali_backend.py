"""Image data in a user's tar shards, decoded and augmented by DALI while training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Unpack

import numpy as np

from mlscale.data.augmentations.device_augment import refuse_on_device
from mlscale.data.dali.augmentation_plan import AugmentationPlan
from mlscale.data.dali.batch_inputs import InputReader
from mlscale.data.dali.dali_stream import DaliStream
from mlscale.data.dali.pipeline import PipelineSettings
from mlscale.data.images.decoded_cache import DecodedSamples
from mlscale.data.images.sharded_images import check_word
from mlscale.data.images.webdataset import TarArguments, TarBackend
from mlscale.data.order.bad_samples import BadSample, Stream
from mlscale.data.order.batch_plan import Batch
from mlscale.data.shards.shard_paths import Spec
from mlscale.errors import MLScaleError

_DEVICES = ("cpu", "gpu")
_LABELS = ("one", "several")


class DaliBackend(TarBackend):
    """Labelled images in tar shards, as `TarBackend` reads them; training samples are decoded and augmented by DALI.

    Order, seeds, resume, labels and normalisation are those of `TarBackend`, and each sample has the crop, the mirror
    image and the other random numbers that it has there; the pixels differ by how DALI resizes. Evaluation decodes
    as `predict` and `serve` do, without DALI, so that a metric is that of the model in production.

    Args:
        train: see `TarBackend`.
        val: see `TarBackend`.
        test: see `TarBackend`.
        device: where JPEGs are decoded and augmented: 'cpu', or 'gpu' for the CUDA device that trains.
        image_key: see `TarBackend`.
        label_key: see `TarBackend`.
        label_field: see `TarBackend`.
        image_size: see `ImageBackend`.
        workers: threads of DALI, and threads that read files, per process.
        allow: see `TarBackend`.
        index: see `TarBackend`.
        mix: see `TarBackend`.
        labels: the labels of each image: 'one' class, or 'several'.
        max_pixels: see `ImageBackend`.
        incomplete: see `TarBackend`.
        verify: see `TarBackend`.
        cache_dir: see `ShardBackend`.
        cache_gb: see `ShardBackend`.
        order: see `ShardBackend`.
        shuffle_window: see `ShardBackend`.
        policy: see `Policy`; `augment` is an augmentation of mlscale, or a transform of torchvision whose operations
            DALI has, too.
    """

    decoder: ClassVar[str] = "dali"

    def __init__(
        self,
        train: Spec | Mapping[str, Spec],
        val: Spec,
        test: Spec | None = None,
        device: str = "cpu",
        **shards: Unpack[TarArguments],
    ) -> None:
        # Before anything is read: masks are not moved by DALI, and pixels of both must stay together.
        check_word("labels", shards.get("labels", "one"), _LABELS)
        check_word("device", device, _DEVICES)
        super().__init__(train, val, test, **shards)
        refuse_on_device(
            self.augment, "DALI augments what it decodes", "augment.device=loader; data.device=gpu does both on the GPU"
        )
        self.device, self._decodes_strictly = device, False

    def _open_stream(self, split: str) -> tuple[Stream, int, str]:
        # What is evaluated is decoded as in production.
        if split != "train" or self._decodes_strictly:
            return super()._open_stream(split)
        data = self.get_decoded_split(split)
        return self._build_dali_stream(data), len(data), data.source.version

    def iterate_stored_samples(self, split: str) -> Iterator[Batch | BadSample]:
        """Yield each sample of a split; see `Backend.iterate_stored_samples`.

        Without augmentation by mlscale's strict decoder, as `mlscale data verify` needs it: DALI's fills up what a
        corrupt JPEG lacks.
        """
        self._decodes_strictly = self.augment is None
        try:
            yield from super().iterate_stored_samples(split)
        finally:
            self._decodes_strictly = False

    def _build_dali_stream(self, data: DecodedSamples) -> DaliStream:
        shape, workers = data.shape, self._resolve_workers()
        if shape.dtype != np.uint8 or shape.channels not in (1, 3):
            raise MLScaleError(
                f"the samples are {shape.dtype} of {shape.channels} channels",
                where="data=dali",
                why="DALI's pipeline takes images: uint8, of 1 or 3 channels",
                fix="data=webdataset, which reads the same shards",
            )
        size = shape.channels, shape.height, shape.width
        # Random numbers are drawn outside of DALI, so that order and resume do not depend on it.
        reader = InputReader(
            data,
            AugmentationPlan(self.augment, size),
            max_pixels=self.max_pixels,
            is_resized=self.image_size is not None,
        )
        # DALI has threads of its own, which decode; those that read files mostly wait.
        settings = PipelineSettings(
            threads=max(1, workers), device=self.device, size=size, mean=shape.mean, std=shape.std
        )
        return DaliStream(data, reader, settings, workers=workers, seed=self.seed)
