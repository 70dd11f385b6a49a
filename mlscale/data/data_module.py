"""Backends as Lightning's data modules."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer

from mlscale.data.augmentations.device_augment import finish_batch, is_unfinished
from mlscale.data.backend import Backend


class OrderedData(Backend, LightningDataModule):
    """Batches in an exact order, for Lightning's Trainer, which is the backend's job."""

    trainer: Any = None  # a Trainer to Lightning, a job to the backend

    @property
    def _has_device(self) -> bool:
        # A loop of one's own and the commands that look at batches take them as they are.
        return isinstance(self.trainer, Trainer)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Finish a batch on its device, where the augmentation is left to that."""
        if not (isinstance(batch, dict) and is_unfinished(batch)):
            return batch
        # Lightning converts to the precision of the model before the transfer, when there were bytes.
        return self.trainer.precision_plugin.convert_input(finish_batch(batch))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move the tensors of a batch. On a CPU there is nothing to do, and to look through the keys takes time."""
        if not isinstance(batch, dict) or device.type == "cpu":
            return batch
        # CUDA has read ordinary memory when the call returns, so the loader may use it again; others may not have.
        ahead = device.type == "cuda"
        return {
            name: value.to(device, non_blocking=ahead) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
