"""Batches in a plain PyTorch loop: the order, the state and the guarantees of a run, without Lightning."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from mlscale.data.backend import Backend
from mlscale.data.order.batch_plan import Batch
from mlscale.data.order.loader import EvalLoader, TrainLoader
from mlscale.errors import MLScaleError

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Loop:
    """A training loop as the job of a backend."""

    world_size: int
    global_rank: int
    num_devices: int
    accumulate_grad_batches: int
    limit_train_batches: float | None = 1.0

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0


class Loader:
    """The batches of one epoch, each time it is iterated over; of training each time the next epoch.

        loader = Loader(TarBackend("shards/{000..099}.tar", "shards/val", image_size=224, batch_size=256))
        for epoch in range(loader.epoch, 90):
            for batch in loader:
                loss = criterion(model(batch["x"]), batch["y"])
                ...
            torch.save({"loader": loader.state_dict(), ...}, path)

    A batch is what `mlscale.data.order.batch_plan.Batch` describes; its arrays are used again after a few batches, so
    clone those that you keep. The batch size of the backend is that of one optimizer step over all ranks.

    Args:
        data: where samples come from.
        split: 'train', 'val' or 'test'; the last two give each sample once over all ranks.
        rank: of this process; None takes that of `torch.distributed`, 0 without a process group.
        world_size: number of ranks; None as for `rank`.
        accumulate: forward passes of one optimizer step: a batch is that of one pass.

    Raises:
        MLScaleError: the data is missing or not what it should be, all problems at once; the batch does not divide
            over ranks and passes; another split.
    """

    def __init__(
        self,
        data: Backend,
        split: str = "train",
        *,
        rank: int | None = None,
        world_size: int | None = None,
        accumulate: int = 1,
    ) -> None:
        if split not in _SPLITS:
            raise MLScaleError(
                f"the split {split!r} is unknown",
                where="split",
                why=f"it is one of: {', '.join(_SPLITS)}",
                fix='write `split="train"`',
            )
        is_joined = dist.is_available() and dist.is_initialized()
        ranks = (dist.get_world_size() if is_joined else 1) if world_size is None else world_size
        own = (dist.get_rank() if is_joined else 0) if rank is None else rank
        # LOCAL_WORLD_SIZE is set by torchrun: ranks of a machine share its cores and its memory.
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.data, self.split = data, split
        self._loop = _Loop(ranks, own, local, accumulate)
        self._loader: TrainLoader | EvalLoader | None = None
        self._attach()
        data.facts()

    @property
    def epoch(self) -> int:
        """The epoch that the next batch of training is of, from 0."""
        return int(self.state_dict()["epoch"])

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self._build())

    def __iter__(self) -> Iterator[Batch]:
        """Iterate from the position that was reached: after an epoch was left early, over its other batches."""
        return iter(self._build())

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the order, in plain values: the same on every rank, for any number of ranks."""
        self._attach()
        return self.data.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position.

        Raises:
            MLScaleError: with the next batch: it is one of other data, another seed or another order.
        """
        self.data.load_state_dict(state)
        self._loader = None

    def _build(self) -> TrainLoader | EvalLoader:
        self._attach()
        if self._loader is None:
            builders: dict[str, Callable[[], TrainLoader | EvalLoader]] = {
                "train": self.data.train_dataloader,
                "val": self.data.val_dataloader,
                "test": self.data.test_dataloader,
            }
            self._loader = builders[self.split]()
        return self._loader

    def _attach(self) -> None:
        # Each time, since loaders of several splits may share a backend.
        self.data.trainer = self._loop
