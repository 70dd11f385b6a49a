"""A loader that costs nothing: what is left of a step then is the headspace of the real one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, repeat
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Replay(Callback):
    """Puts a loader that repeats one batch in the place of the training loader, whoever makes it.

    The batch is the first that the real loader gives. It is the same object each time: a task that changes its batch in
    place changes it again and again, which costs what it costs with real ones.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        source: Any = data if data is not None else pl_module
        make = source.train_dataloader

        def train_dataloader() -> Repeated:
            return Repeated(make())

        if stage == "fit":
            source.train_dataloader = train_dataloader


class Repeated:
    """The first batch of `loader`, as often as that has batches; without end where that does not say.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, loader: Any) -> None:
        batches = iter(loader)
        self._batch = next(batches, None)
        del batches  # its workers end
        if self._batch is None:
            raise ValueError("the training data has no batch")
        try:
            self._length: int | None = len(loader)
        except TypeError:
            self._length = None

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("the loader has no length")
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return (self._batch for _ in (count() if self._length is None else repeat(None, self._length)))
