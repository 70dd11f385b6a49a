"""The data module that all of mlscale's data share: facts, loaders, and a place to go on from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningDataModule

from mlscale.data.augment import as_batch_augment
from mlscale.data.facts import DataFacts, Promises
from mlscale.data.loader import EvalLoader, Progress, Stream, TrainLoader
from mlscale.data.order import ORDER_VERSION
from mlscale.data.plan import Layout
from mlscale.errors import MLScaleError


class OrderedData(LightningDataModule):
    """Batches in an exact order, from whatever a subclass makes its streams of.

    The trainer says how many ranks there are and how many forward passes make a step; without one there is one of each.

    Args:
        batch_size: samples of one optimizer step, over all ranks and forward passes.
        workers: what decodes, per process; 'auto' is the subclass's choice.
        seed: of order and augmentation.
        augment: `Augment`, or a callable on one sample; training only.
    """

    promises: ClassVar[Promises] = Promises(order=True, resume=True, elastic=True)

    def __init__(self, *, batch_size: int, workers: int | str, seed: int, augment: object) -> None:
        super().__init__()
        if workers != "auto" and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
            raise MLScaleError(
                f"data.workers is {workers!r}.",
                where="data.workers",
                why="it is a number from 0, or auto",
                fix="data.workers=auto",
            )
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.augment = as_batch_augment(augment)
        self._progress = Progress()
        self._restored: Mapping[str, Any] | None = None

    # What a subclass says.

    def facts(self) -> DataFacts:
        """What is known of the data; needs no trainer.

        Raises:
            MLScaleError: the data is missing or not what it should be; all problems at once.
        """
        raise NotImplementedError

    def _stream(self, split: str) -> tuple[Stream, int, str]:
        """What makes batches of a split ('train', 'val' or 'test'), how many samples it has, and its version."""
        raise NotImplementedError

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Read the indexes; a fit starts from the beginning unless a checkpoint is loaded after this."""
        self.facts()
        if stage == "fit":
            self._progress, self._restored = Progress(), None

    def train_dataloader(self) -> TrainLoader:
        """Batches of this rank, from where the run stands."""
        stream, samples, version = self._stream("train")
        layout = self._layout()
        layout.check(samples)
        self._check_restored(version, layout)
        limit, fixed = self._limit(samples // layout.batch_size * layout.accumulate)
        return TrainLoader(
            stream,
            samples,
            layout,
            seed=self.seed,
            version=version,
            progress=self._progress,
            limit=limit,
            fixed=fixed,
        )

    def val_dataloader(self) -> EvalLoader:
        """Each validation sample once over all ranks."""
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        """Each test sample once over all ranks."""
        return self._eval_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """The place in the order, and what the order depends on."""
        version = self._stream("train")[2]
        return {**self._progress.state_dict(), "seed": self.seed, "version": version, "order_version": ORDER_VERSION}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a place. Whether it belongs to this data is asked when training starts: evaluation may differ."""
        self._restored = state_dict
        self._progress = Progress(int(state_dict["epoch"]), int(state_dict["position"]))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move the tensors of a batch. On a CPU there is nothing to do, and to look through the keys takes time."""
        if not isinstance(batch, dict) or device.type == "cpu":
            return batch
        return {
            name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }

    # Ours.

    def _threads(self) -> int:
        """`workers: auto`: the cores this process may use, shared among the ranks of this machine, four at most."""
        if isinstance(self.workers, int):
            return self.workers
        return max(1, min(4, len(os.sched_getaffinity(0)) // local_ranks(self.trainer)))

    def _eval_loader(self, split: str) -> EvalLoader:
        stream, samples, _ = self._stream(split)
        layout = self._layout()
        layout.check(max(samples, layout.batch_size))
        return EvalLoader(stream, samples, layout)

    def _layout(self) -> Layout:
        trainer = self.trainer
        if trainer is None:
            return Layout(self.batch_size)
        return Layout(self.batch_size, trainer.world_size, trainer.global_rank, trainer.accumulate_grad_batches)

    def _limit(self, batches: int) -> tuple[int | None, bool]:
        """Batches of an epoch as the trainer limits them, and whether all epochs are to be the first."""
        if self.trainer is None:
            return None, False
        limit = self.trainer.limit_train_batches
        return int(limit * batches) if isinstance(limit, float) else limit, getattr(
            self.trainer, "overfit_batches", 0
        ) > 0

    def _check_restored(self, version: str, layout: Layout) -> None:
        if self._restored is None:
            return
        now = {"seed": self.seed, "version": version, "order_version": ORDER_VERSION}
        for name, value in now.items():
            if self._restored[name] != value:
                raise MLScaleError(
                    "The checkpoint's place in the data is a place in another order.",
                    where={"seed": "seed", "version": "data.train", "order_version": "mlscale"}[name],
                    why=f"its {name.replace('_', ' ')} is {self._restored[name]}, and this run's is {value}",
                    fix=f"seed={self._restored[name]}" if name == "seed" else "start a new run from the weights alone",
                )
        if self._progress.position % layout.micro:
            raise MLScaleError(
                f"The run stands at sample {self._progress.position}, where no batch of {layout.micro} begins.",
                where="data.batch_size",
                why="the batch size has changed since the checkpoint was written",
                fix="go on with the batch size of the run, or start a new run from the weights alone",
            )


def local_ranks(trainer: Any) -> int:
    """Ranks that share this machine."""
    return max(1, trainer.num_devices if trainer is not None else int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
