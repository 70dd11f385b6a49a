"""Graceful shutdown by a signal: the handler sets a flag, the run stops between two steps."""

import contextlib
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_search import suggest_resume
from mlscale.runs.host.processes import STOP_SIGNALS, unblock_stop_signals
from mlscale.train.checkpoint.failed_saves import has_last_save_failed
from mlscale.train.checkpoint.step_boundary import is_accumulating

_TIME_IS_UP = 1000  # above the number of any signal, so it also wins the ranks' maximum
_RESUME = "mlscale runs resume last"
_AGREE_SECONDS = 1.0  # between two agreements of the ranks
# An upper bound of the steps between two agreements: later steps may be slower than the measured ones.
_MAX_STEPS = 200

# `timeout` sends its signal twice: to the command, and to its process group.
_ECHO_SECONDS = 0.5

_since = 0.0  # when the last signal arrived
_received = 0  # the signal that arrived first; 0 for none
_folder: Path | None = None
_is_noting = False
_on_second = "end"
_is_restarted = False
_has_run_failed: Callable[[], bool] = lambda: False  # noqa: E731 - replaced by `handle_stop_signals`
_has_fit_ended = False


@contextlib.contextmanager
def handle_stop_signals(
    folder: Path | None = None,
    has_run_failed: Callable[[], bool] = lambda: False,
    *,
    on_second: Literal["end", "raise", "ignore"] = "end",
    ignores_after: bool = False,
    is_restarted: bool = False,
) -> Iterator[None]:
    """Let stop signals request a graceful shutdown in this block; SIGHUP unless it was ignored, as by nohup. A second
    SIGINT ends the run at once.

    Args:
        folder: of the run.
        has_run_failed: whether the run has failed already, on another rank: SIGTERM then ends the process at once, for
            it may be in a call that never returns.
        on_second: whether a second SIGINT ends the process, raises MLScaleError, as in a notebook, or does nothing, as
            in a rank, which its launcher ends.
        ignores_after: whether they are ignored from the end of the block on: the run is saved, and the process is about
            to end.
        is_restarted: whether a launcher starts the run again by its exit code: SIGTERM, which schedulers send ahead of
            a preemption, then ends with the code of a run that has saved.
    """
    global _received, _folder, _has_run_failed, _has_fit_ended, _on_second, _is_restarted
    _received, _folder, _has_run_failed = _received if _is_noting else 0, folder, has_run_failed
    _has_fit_ended, _on_second, _is_restarted = False, on_second, is_restarted
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread set handlers
        yield
        return
    before: dict[int, Any] = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for signum in before:
        signal.signal(signum, _handle_signal)
    unblock_stop_signals()
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, _ignore_signal if ignores_after else handler)


@contextlib.contextmanager
def note_stop_signals() -> Iterator[None]:
    """Note stop signals in this block for the training in it, also those that arrive before it handles them. What comes
    after the training, to record it, takes a moment, and is not stopped.
    """
    global _is_noting
    with handle_stop_signals():
        _is_noting = True
        try:
            yield
        finally:
            _is_noting = False


def get_received_signal() -> int:
    """Return the signal that arrived first; 0 for none."""
    return _received


def raise_if_stop_requested(undone: str) -> None:
    """End a run whose training is over and saved, and whose next part may take minutes.

    Raises:
        MLScaleError: a signal has arrived; the message names `undone`, which was not done.
    """
    if _received:
        raise MLScaleError(
            f"stopped by {_format_stop_cause(_received)} after the fit, without {undone}",
            fix=_RESUME,
            exit=_choose_exit(_received, saved=True),
        )


def _choose_exit(request: int, *, saved: bool) -> Exit:
    """Return the exit code of a run that was stopped."""
    if request == signal.SIGINT:
        return Exit.INTERRUPTED
    # Schedulers send USR1 ahead of a time limit: the exit code requests to be run again.
    is_again = _is_restarted or request in (_TIME_IS_UP, signal.SIGUSR1)
    return Exit.SAVED if saved and is_again else Exit.TERMINATED


def _handle_signal(signum: int, frame: FrameType | None) -> None:
    global _received, _since
    if signum == signal.SIGHUP:
        _leave_closed_terminal()
    again = time.monotonic() - _since > _ECHO_SECONDS
    # A fit that has ended, by an error of its own, is not in a call that never returns: it may wait for its uploads.
    is_over = signum == signal.SIGTERM and not _has_fit_ended and _has_run_failed()
    is_second = signum == signal.SIGINT == _received and again and _on_second != "ignore"
    if is_second or is_over:
        if is_second and _on_second == "raise":
            signal.signal(signum, signal.default_int_handler)
            raise MLScaleError(
                "stopped by a second SIGINT, in the middle of a step",
                exit=Exit.INTERRUPTED,
                fix=suggest_resume(_folder) if _folder else _RESUME,
            )
        for worker in multiprocessing.active_children():
            # A process that a signal ends runs no exit handlers, and would leave its loader workers behind.
            worker.kill()
        # Ended by the signal itself: shells and schedulers read that from the exit status.
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    _received = _received or signum
    _since = time.monotonic()


def _leave_closed_terminal() -> None:
    """Let standard output and error go nowhere where their terminal is closed: to write to it would be an error."""
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), stream)


def _ignore_signal(signum: int, frame: FrameType | None) -> None:
    """Do nothing. Not SIG_IGN, which programs that are started later would inherit."""


class StopOnSignal(Checkpoint):
    """A callback that saves and raises (exit code 75, 130 or 143) at a step boundary once a signal has arrived, or once
    the time that the run may take is over.

    Ranks must stop after the same step. They agree by one all_reduce about once a second: the number of steps between
    two of them follows from the slowest rank's time per step, which travels with it. A single process reads a variable.

    It is a Checkpoint, so that Lightning does not add one of its own to a run that has no other.

    Args:
        path: the checkpoint to write; None writes none.
        max_seconds: the time that this attempt may take, from now on; None for no limit. It ends with exit code 75:
            saved, to be run again.
    """

    def __init__(self, path: str | None, max_seconds: float | None = None) -> None:
        self.path = path
        self._deadline = float("inf") if max_seconds is None else time.monotonic() + max_seconds
        self._request = 0
        self._due = 1  # batches until the ranks agree again
        self._batches = 0
        self._since = 0.0

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            self._agree_on_stop(trainer)
        else:
            self._request = self._get_stop_request()
        if self._request and not is_accumulating(trainer):
            self._save_and_stop(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        global _has_fit_ended
        _has_fit_ended = True

    def _get_stop_request(self) -> int:
        return _received or (_TIME_IS_UP if time.monotonic() > self._deadline else 0)

    def _agree_on_stop(self, trainer: Trainer) -> None:
        self._due -= 1
        if self._due or self._request:
            return
        now = time.monotonic()
        seconds = (now - self._since) / self._batches if self._batches else _AGREE_SECONDS
        shared = torch.tensor([float(self._get_stop_request()), seconds], device=trainer.strategy.root_device)
        # One collective for both: the largest request, and the time per step of the slowest rank.
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        request, seconds = shared.tolist()
        self._request = int(request)
        self._batches = self._due = max(1, min(_MAX_STEPS, int(_AGREE_SECONDS / max(seconds, 1e-6))))
        self._since = now

    def _save_and_stop(self, trainer: Trainer) -> None:
        saved = ""
        if self.path is not None:
            trainer.save_checkpoint(self.path)
            saved = "" if has_last_save_failed(trainer) else f", saved to {self.path}"
        raise MLScaleError(
            f"stopped by {_format_stop_cause(self._request)} after optimizer step {trainer.global_step}{saved}",
            fix=_RESUME if saved else suggest_resume(Path(trainer.default_root_dir)),
            exit=_choose_exit(self._request, saved=bool(saved)),
        )


def parse_max_time(limit: str | Mapping[str, float] | None) -> float | None:
    """Return `trainer.max_time` in seconds, given as `DD:HH:MM:SS` or a mapping of `timedelta`'s arguments.

    Raises:
        MLScaleError: it is neither.
    """
    if limit is None:
        return None
    try:
        if isinstance(limit, str):
            days, hours, minutes, seconds = (int(part) for part in limit.split(":"))
            limit = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        return timedelta(**limit).total_seconds()
    except (TypeError, ValueError) as error:
        refused = MLScaleError(
            f"trainer.max_time is {limit!r}",
            where="trainer.max_time",
            why="it is days:hours:minutes:seconds, such as 00:11:55:00, or a mapping such as {hours: 12}",
            fix="trainer.max_time=00:11:55:00",
        )
        refused.unbuilt = True
        raise refused from error


def _format_stop_cause(request: int) -> str:
    return "trainer.max_time" if request == _TIME_IS_UP else signal.Signals(request).name
