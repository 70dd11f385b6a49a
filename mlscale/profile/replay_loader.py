"""A loader that costs nothing: the time that it saves is the headroom of the real one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, repeat
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Replay(Callback):
    """A callback that replaces the training loader, of the data module or the task, by one that repeats one batch.

    The batch is the real loader's first one, the same object each time: a task that changes its batch in place changes
    it again and again, at the cost that it has with real ones.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        source: Any = data if data is not None else pl_module
        make = source.train_dataloader

        # On the instance, before Lightning calls it: `setup` of callbacks comes before the loaders are made.
        def train_dataloader() -> RepeatedBatch:
            return RepeatedBatch(make())

        if stage == "fit":
            source.train_dataloader = train_dataloader


class RepeatedBatch:
    """The first batch of `loader`, repeated for its length; without end if it has no length.

    Raises:
        ValueError: the loader has no batch.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        batches = iter(loader)
        self._batch = next(batches, None)
        del batches  # ends its workers, which would take cores from the replayed steps
        if self._batch is None:
            raise ValueError("the training data has no batch")
        try:
            self._length: int | None = len(loader)  # type: ignore[arg-type]  # caught where it has none
        except TypeError:
            self._length = None

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("the loader has no length")
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return (self._batch for _ in (count() if self._length is None else repeat(None, self._length)))
