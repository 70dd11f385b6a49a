"""Signals that arrive before a training handles them, while the data are prepared: they end with exit code 75 as well.

Nothing is lost by such a stop, and nothing is saved: the next start prepares again. Without this the system's default
would end the process by the signal, and no rule on exit code 75 would start it again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank
from mlscale.launch.job_environment import JOB_RUN
from mlscale.runs.host.processes import STOP_SIGNALS


class EarlyStop(BaseException):
    """A signal has arrived. Not an Exception: code that handles errors of the data must let it through."""

    run = ""  # the folder of the run that it ended, as `MLScaleError` has it

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} before the first step; there was nothing to save")

    def build_error(self) -> MLScaleError:
        """Return the error that ends the process."""
        error = MLScaleError(str(self), fix="start the command again", exit=Exit.SAVED)
        error.run = self.run
        return error


def choose_early_signals(
    external: ExternalRank | None, environment: Mapping[str, str] = os.environ
) -> tuple[signal.Signals, ...]:
    """Return the signals that ask for another start, and not for an end."""
    # The script of a SLURM job reads other codes from these signals: a time limit that is too short for a start, and a
    # preemption, which does not count as a failure.
    if JOB_RUN in environment:
        return ()
    if external is None:
        return (signal.SIGUSR1,)  # SIGTERM ends a process that was started by hand
    # torchrun ends with 1 whatever its ranks end with, and sends SIGTERM to those that outlive a failed one.
    return () if external.is_elastic else (signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def handle_early_signals(signals: tuple[signal.Signals, ...], *, is_reported: bool = False) -> Iterator[None]:
    """Let `signals` end this block with exit code 75. Handlers that others have set, before or in the block, stay.

    Args:
        is_reported: another rank, which gets the same signal, prints the error.

    Raises:
        MLScaleError: one of them has arrived (exit code 75).
    """
    # Python lets no other thread set handlers; and a handler that is set serves another caller: a notebook, a watch.
    if threading.current_thread() is not threading.main_thread():
        signals = ()
    before = {signum: signal.getsignal(signum) for signum in signals}
    handled = [signum for signum in signals if before[signum] in (signal.SIG_DFL, end_by_sigterm)]
    for signum in handled:
        signal.signal(signum, _raise_stop)
    try:
        yield
    except EarlyStop as stop:
        error = stop.build_error()
        error.is_reported = is_reported
        raise error from None
    finally:
        for signum in handled:
            # A rank that reports a failure ignores SIGTERM until its end.
            if signal.getsignal(signum) is _raise_stop:
                signal.signal(signum, before[signum])


def handle_first_signals() -> None:
    """Let signals that arrive before a command has handlers of its own end the process with a line."""
    # In SLURM's job, USR1 keeps its own exit code: the script knows by it that a time limit is too short for a start.
    for signum in (signal.SIGTERM, signal.SIGHUP, *choose_early_signals(None)):
        if signal.getsignal(signum) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(signum, end_by_sigterm)


def end_by_sigterm(signum: int, frame: FrameType | None) -> None:
    """Print one line and end as by SIGTERM, by USR1 with exit code 75, whatever else handles that: nothing that saves
    has begun."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    name = signal.Signals(signum).name
    text = (
        f"error: stopped by {name}: no training was running, so nothing was saved\n  fix:   start the command again\n"
    )
    # Not `print`, which the signal may have interrupted. A worker of a library is ended by its owner, without a word.
    with contextlib.suppress(OSError):  # a closed terminal
        os.write(2, b"" if multiprocessing.parent_process() else text.encode())
    if signum == signal.SIGUSR1:
        os._exit(int(Exit.SAVED))
    os.kill(os.getpid(), signal.SIGTERM)


def ignore_late_signals() -> None:
    """Ignore stop signals from now on: the run is recorded, and all that is left is to end with its exit code."""
    for signum in {*STOP_SIGNALS} - {signal.SIGINT}:
        signal.signal(signum, signal.SIG_IGN)


def _raise_stop(signum: int, frame: FrameType | None) -> None:
    # The launcher may send it again: once is enough, and a second one would cut the end short.
    signal.signal(signum, signal.SIG_IGN)
    raise EarlyStop(signum)
