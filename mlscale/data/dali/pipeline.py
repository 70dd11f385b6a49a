"""DALI's pipeline: decode a part of each image, bring it to its size, change it, normalise it.

Nothing in it is random: parts, mirror images and the numbers of each operation come from outside, batch by batch, so
order, seeds and exact resume are those of mlscale's loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlscale.data.dali.operations import MOVES, Kind
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from nvidia.dali import Pipeline
    from nvidia.dali.data_node import DataNode

    from mlscale.data.dali.batch_inputs import BatchInputs

QUEUE_DEPTH = 2
"""Batches in work at a time: one is computed while the one before is taken."""


@dataclass(frozen=True)
class PipelineSettings:
    """The properties of a pipeline, of which those of its batches may grow.

    Args:
        threads: of the CPU.
        device: 'cpu', or 'gpu': JPEGs are decoded and everything else is computed on the process's CUDA device.
        size: channels, height and width of a sample.
        mean: of each channel, to normalise by.
        std: of each channel.
        batch_size: samples of a batch, at most.
        steps: operations of a sample, at most.
        kinds: the operations that occur.
    """

    threads: int
    device: str
    size: tuple[int, int, int]
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int = 0
    steps: int = 0
    kinds: frozenset[Kind] = frozenset()

    def can_compute(self, inputs: BatchInputs) -> bool:
        """Return True if a pipeline of these settings computes such a batch."""
        return self == self.extend(inputs)

    def extend(self, inputs: BatchInputs) -> PipelineSettings:
        """Return the settings for such a batch, too."""
        return replace(
            self,
            batch_size=max(self.batch_size, len(inputs.samples)),
            steps=max(self.steps, inputs.steps),
            kinds=self.kinds | inputs.kinds,
        )


def build_pipeline(settings: PipelineSettings) -> Pipeline:
    """Return a built pipeline, whose output is float32 (n, channels, height, width).

    Raises:
        MLScaleError: DALI is not installed.
    """
    import torch

    try:
        from nvidia.dali import pipeline_def
    except ImportError as error:
        raise MLScaleError(
            "the package nvidia-dali-cuda120 is not installed",
            where="data=dali",
            why="it decodes and augments the training images",
            fix="pip install 'mlscale[dali]'; or data=webdataset, which needs no package",
            exit=Exit.ENVIRONMENT,
        ) from error

    device_id = torch.cuda.current_device() if settings.device == "gpu" else None
    define = pipeline_def(_define_graph, enable_conditionals=bool(settings.steps))
    pipeline = define(
        settings,
        batch_size=settings.batch_size,
        num_threads=settings.threads,
        device_id=device_id,
        prefetch_queue_depth=QUEUE_DEPTH,
    )
    pipeline.build()
    return pipeline


def _define_graph(settings: PipelineSettings) -> DataNode:
    from nvidia.dali import fn, types

    is_gpu = settings.device == "gpu"
    channels, height, width = settings.size
    # It decodes no more of a JPEG than the part needs, and turns it upright first, as mlscale does.
    images = fn.decoders.image_slice(
        fn.external_source(name="images"),
        fn.external_source(name="starts"),
        fn.external_source(name="shapes"),
        normalized_anchor=False,
        normalized_shape=False,
        axes=[0, 1],
        output_type=types.RGB if channels == 3 else types.GRAY,
        device="mixed" if is_gpu else "cpu",
    )
    images = fn.resize(images, size=(height, width), interp_type=types.INTERP_LINEAR, antialias=True)
    # Each operation rounds as torchvision does; without one, uint8 goes straight to the normalisation.
    if settings.steps:
        images = fn.cast(images, dtype=types.FLOAT)
        for step in range(settings.steps):
            images = _apply_step(images, step, settings)
    return fn.crop_mirror_normalize(
        images,
        mirror=fn.external_source(name="mirrors"),
        mean=list(settings.mean),
        std=list(settings.std),
        dtype=types.FLOAT,
        output_layout="CHW",
    )


def _apply_step(images: DataNode, step: int, settings: PipelineSettings) -> DataNode:
    """Apply one operation to each sample of a batch, its own one."""
    from nvidia.dali import fn

    from mlscale.data.dali.pipeline_operations import OPERATIONS

    kinds, values = fn.external_source(name=f"kinds{step}"), fn.external_source(name=f"values{step}")
    # Numbers of a move are arguments, which are on the CPU; all others are computed with.
    numbers = values.gpu() if settings.device == "gpu" else values
    for kind in sorted(settings.kinds - {Kind.NOTHING}):
        # In the order of their codes; a sample has one kind at each step, so the order does not matter.
        # DALI rewrites this `if`: it splits the batch, and only samples of this kind go through the operation.
        if kinds == int(kind):
            images = OPERATIONS[kind](images, values if kind in MOVES else numbers)
    return images
