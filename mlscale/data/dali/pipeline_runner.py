"""Runs a pipeline batch by batch: what was fed first is taken first."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mlscale.data.dali.batch_inputs import BatchInputs
from mlscale.data.dali.pipeline import QUEUE_DEPTH, PipelineSettings, build_pipeline
from mlscale.data.images.array_ring import ArrayRing

if TYPE_CHECKING:
    from nvidia.dali.tensors import TensorListCPU, TensorListGPU

_FLOAT = np.dtype(np.float32)


class PipelineFailedError(Exception):
    """DALI could not compute a batch; which one is not known, and the pipeline is of no use any more."""


class PipelineRunner:
    """Feeds a pipeline and takes its results, at most `QUEUE_DEPTH` batches at a time.

    DALI starts with as many batches as its queue is deep. Where fewer are fed, the last one is fed again, and the
    results of these copies are thrown away.

    Args:
        settings: of the pipeline, which is built.

    Attributes:
        settings: see above.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        self.settings, self._pipeline = settings, build_pipeline(settings)
        self._ring = ArrayRing(keep=QUEUE_DEPTH + 4)
        self._fed: deque[BatchInputs] = deque()
        self._has_started = False

    def feed(self, inputs: BatchInputs) -> None:
        """Start the work on a batch, which DALI's threads do.

        Raises:
            PipelineFailedError: an earlier batch has failed.
        """
        for name, arrays in inputs.list_arrays(self.settings.steps, self.settings.kinds).items():
            # DALI copies what it is fed.
            self._pipeline.feed_input(name, arrays)
        self._fed.append(inputs)
        if self._has_started or len(self._fed) == QUEUE_DEPTH:
            # The first call starts all that was fed, each later one a single batch.
            self._has_started = True
            with _translate_errors():
                self._pipeline.schedule_run()

    def take(self) -> Tensor:
        """Return the result of the batch that was fed first, float32 (n, channels, height, width), of one's own.

        Raises:
            PipelineFailedError: DALI's error; the runner can't be used again.
        """
        copies = 0 if self._has_started else QUEUE_DEPTH - len(self._fed)
        for _ in range(copies):
            self.feed(self._fed[-1])
        result = self._take_output()
        # Nothing may stay in the queue: the next result would be that of a copy.
        for _ in range(copies):
            self._take_output()
        return result

    def _take_output(self) -> Tensor:
        with _translate_errors():
            (output,) = self._pipeline.share_outputs()
            result = self._copy_output(output)
            self._pipeline.release_outputs()
        self._fed.popleft()
        return result

    def _copy_output(self, output: TensorListCPU | TensorListGPU) -> Tensor:
        """Return DALI's result in memory that it does not use again."""
        dense = output.as_tensor()
        if self.settings.device == "gpu":
            from nvidia.dali.plugin.pytorch import feed_ndarray

            # On the device's stream that trains, so that the training step waits for it.
            moved = torch.empty(dense.shape(), dtype=torch.float32, device="cuda")
            feed_ndarray(dense, moved, cuda_stream=torch.cuda.current_stream())
            return moved
        shared = np.asarray(dense)
        array = self._ring.take_array(shared.shape, _FLOAT)
        np.copyto(array, shared)
        return torch.from_numpy(array)


class _translate_errors:  # noqa: N801  reads as a statement
    """Raise `PipelineFailedError` for DALI's errors: RuntimeError, or the Python exception that is nearest to it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, RuntimeError | ValueError | TypeError | IndexError):
            raise PipelineFailedError(str(error)) from error
