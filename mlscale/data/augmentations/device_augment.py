"""Augmentation on the device that trains: the loader hands over decoded pixels and seeds, and the rest is done there.

The numbers of each sample are drawn on the CPU from its own seed, as in the loader; what is computed with them is the
same arithmetic in torch. On a CPU the result is bitwise that of the loader.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlscale.data.order.batch_plan import Batch
from mlscale.errors import MLScaleError

DEVICES = ("loader", "model")
_UNFINISHED = "unfinished"
"""The entry of a batch that is not finished: what is left to do."""


class TensorAugment(Protocol):
    """An augmentation that changes decoded samples on any device."""

    device: str

    def change_tensors(self, x: Tensor, seeds: NDArray[np.uint64]) -> Tensor:
        """Return the changed x, float32 (n, C, H, W) on its device; seeds are uint64 (n,)."""


Finish = Callable[..., Batch]
"""See `mlscale.data.order.loader.Finish`: mixup and cutmix, which also take `on_device`."""


class UnfinishedBatch:
    """What is left to do to a batch of decoded samples.

    Args:
        augment: changes the samples.
        seeds: of the samples, uint64 (n,).
        mean: of each channel, float32 (C, 1, 1).
        std: of each channel, float32 (C, 1, 1).
    """

    def __init__(
        self, augment: TensorAugment, seeds: NDArray[np.uint64], mean: NDArray[np.float32], std: NDArray[np.float32]
    ) -> None:
        self._augment, self._seeds = augment, seeds
        self._mean, self._std = torch.from_numpy(mean), torch.from_numpy(std)
        self.mix: partial[Batch] | None = None

    def finish(self, batch: Batch) -> Batch:
        """Augment, normalise and mix the samples, on the device that they are on."""
        # First the pixels: normalising is what the model was promised, whatever an augmentation does.
        x = self._augment.change_tensors(batch["x"], self._seeds)
        # Not in place: an augmentation may return what it was given.
        batch["x"] = (x - self._mean.to(x.device)).div_(self._std.to(x.device))
        return batch if self.mix is None else self.mix(batch)


def check_device(device: object) -> str:
    """Return where an augmentation is computed.

    Raises:
        MLScaleError: it is not one of `DEVICES`.
    """
    if device not in DEVICES:
        raise MLScaleError(
            f"augment.device is {device!r}",
            where="augment.device",
            why=f"it is one of: {', '.join(DEVICES)}; model is the device that trains, a GPU or the CPU",
            fix="augment.device=model",
        )
    return str(device)


def refuse_on_device(augment: object, why: str, fix: str = "augment.device=loader") -> None:
    """Raise if an augmentation is left to the device that trains, where that is not possible.

    Raises:
        MLScaleError: it is.
    """
    if is_on_device(augment):
        raise MLScaleError("augment.device=model does not go with this data", where="augment.device", why=why, fix=fix)


def is_on_device(augment: object) -> bool:
    """Return True if an augmentation is left to the device that trains."""
    return getattr(augment, "device", DEVICES[0]) == "model"


def leave_unfinished(batch: Batch, work: UnfinishedBatch) -> Batch:
    """Return the batch with what is left to do."""
    return {**batch, _UNFINISHED: work}


def is_unfinished(batch: Batch) -> bool:
    """Return True if something is left to do to a batch."""
    return _UNFINISHED in batch


def finish_batch(batch: Batch) -> Batch:
    """Return a batch with nothing left to do; most have nothing."""
    # Taken out: a finished batch has what every task knows, and no more.
    work = batch.pop(_UNFINISHED, None)
    return batch if work is None else work.finish(batch)


def choose_finish(augment: object, mixing: Finish | None, *, at_once: bool) -> Finish | None:
    """Return what the loader does to each batch: mix it, or note that for the device that trains.

    Args:
        augment: of the training samples.
        mixing: mixup and cutmix; None for none.
        at_once: finish batches in the loader after all: for callers that have no device.
    """
    return partial(_mix_later, mixing=mixing, at_once=at_once) if is_on_device(augment) else mixing


def _mix_later(
    batch: Batch, epoch: int, positions: NDArray[np.int64], *, mixing: Finish | None, at_once: bool
) -> Batch:
    # Positions and epoch are those of the batch, which the device can't know.
    if mixing is not None:
        batch[_UNFINISHED].mix = partial(mixing, epoch=epoch, positions=positions, on_device=True)
    return finish_batch(batch) if at_once else batch
