"""Stopping by signal: the handler sets a flag, the run stops between two steps."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from mlscale.errors import Exit, MLScaleError

_EXITS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}
_AGREE_SECONDS = 1.0  # between two agreements of the ranks
_MOST_STEPS = 200

# A rank gets Ctrl-C twice: from the terminal, and from the launcher that passes it on.
_ECHO_SECONDS = 0.5

_since = 0.0  # when the last signal arrived
_received = 0  # the signal that arrived first; 0 for none
_over: Callable[[], bool] = lambda: False  # noqa: E731 - replaced by `noted`


@contextlib.contextmanager
def noted(over: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Inside the block SIGTERM and SIGINT ask the run to stop. A second SIGINT ends the process at once.

    Args:
        over: whether the run has failed already, on another rank: SIGTERM then ends the process at once, for it may
            sit in a call that never comes back.
    """
    global _received, _over
    _received, _over = 0, over
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread set handlers
        yield
        return
    before = {signum: signal.signal(signum, _note) for signum in _EXITS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def received() -> int:
    """The signal that arrived first; 0 for none."""
    return _received


def _note(signum: int, frame: FrameType | None) -> None:
    global _received, _since
    again = time.monotonic() - _since > _ECHO_SECONDS
    if (signum == signal.SIGINT == _received and again) or (signum == signal.SIGTERM and _over()):
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    _received = _received or signum
    _since = time.monotonic()


class StopOnSignal(Checkpoint):
    """Saves and raises (exit code 130 or 143) between two optimizer steps once a signal has arrived.

    Ranks must stop after the same step. They agree by one all_reduce about once a second: the number of steps between
    two of them follows from the slowest rank's time per step, which travels with it. One process looks at a variable.

    A save in the middle of accumulation would lose gradients, and one where validation is due would lose that
    validation: it then waits. Being a Checkpoint, it runs after all other callbacks.

    Args:
        path: the checkpoint to write; None writes none.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._asked = 0
        self._due = 1  # batches until the ranks agree again
        self._batches = 0
        self._since = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1:
            self._agree(trainer)
        else:
            self._asked = _received
        if not self._asked:
            return
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        wait = loop._should_accumulate() or loop._should_check_val_fx(fetcher) or loop.batch_progress.is_last_batch
        if not wait:
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._asked and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._asked:
            self._stop(trainer)

    def _agree(self, trainer: Trainer) -> None:
        self._due -= 1
        if self._due or self._asked:
            return
        now = time.monotonic()
        seconds = (now - self._since) / self._batches if self._batches else _AGREE_SECONDS
        shared = torch.tensor([float(_received), seconds], device=trainer.strategy.root_device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        signum, seconds = shared.tolist()
        self._asked = int(signum)
        self._batches = self._due = max(1, min(_MOST_STEPS, int(_AGREE_SECONDS / max(seconds, 1e-6))))
        self._since = now

    def _stop(self, trainer: Trainer) -> None:
        name = signal.Signals(self._asked).name
        saved = ""
        if self.path is not None:
            trainer.save_checkpoint(self.path)
            saved = f", saved to {self.path}"
        raise MLScaleError(
            f"stopped by {name} after optimizer step {trainer.global_step}{saved}",
            exit=_EXITS[signal.Signals(self._asked)],
        )
