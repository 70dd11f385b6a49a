"""Start one process per device on this machine, from the run folder, and report how they ended."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, spawn
from pathlib import Path
from typing import Any

from mlscale.errors import Exit, MLScaleError
from mlscale.launch import rank_failures as failures
from mlscale.runs.host import processes as process

RankMain = Callable[[str, Mapping[str, str], str, int], None]
PRELOAD = "mlscale.assembly.preload"  # by name: the fork server imports it
_SAVE_SECONDS = 600  # the time that ranks have after a stop signal for their last step and checkpoint


def start_fork_server(devices: object, *, as_children: bool = False) -> None:
    """Start the fork server for more than one process now, so that it imports torch while this process does.

    Args:
        as_children: also a single process is forked.
    """
    if isinstance(devices, int) and (devices > 1 or as_children):
        multiprocessing.set_forkserver_preload([PRELOAD])
        forkserver.ensure_running()


def launch_ranks(main: RankMain, folder: Path, world_size: int, checkpoint: Path | None = None) -> None:
    """Run `main` in `world_size` processes, which train the run in `folder`, from the start or from `checkpoint`.

    Ranks are forked from a fork server that has imported torch and Lightning and computed nothing: they start in a
    second or two whatever this process has done before. The server may be older than the folder, so the secrets that
    the folder refers to are passed with the call.

    Args:
        main: the entry of a rank; it gets the folder, this process's environment, the checkpoint ('' for none) and
            this process's id.

    Raises:
        MLScaleError: the error of a rank, which may be a stop by a signal; or the rank that died, and its cause.
    """
    start_fork_server(world_size, as_children=True)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from mlscale.launch.rendezvous import BACKEND

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world_size,
        rdzv_backend=BACKEND,
        run_id=uuid.uuid4().hex,
        start_method="forkserver",
        # The agent would restart from the checkpoint of this start; `launch.max_restarts` takes the latest one.
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        shutdown_timeout=_SAVE_SECONDS,
    )
    failures.clear_rank_failures(folder)
    if not os.environ.get("MLSCALE_TRACEBACK"):
        # The agent logs tracebacks and exit codes of ranks; the errors below replace them.
        for name in [*logging.Logger.manager.loggerDict]:
            if name.startswith(("torch.distributed.elastic", "torch.multiprocessing")):
                logging.getLogger(name).setLevel(logging.CRITICAL)
    server = _ForkServer.find_running()
    try:
        with (
            _restore_signal_handlers(config.signals_to_handle.split(",")),
            _kill_on_second_interrupt(),
            _skip_main_import(),
        ):
            elastic_launch(config, main)(str(folder), dict(os.environ), str(checkpoint or ""), os.getpid())
    except ChildFailedError as error:
        if server.is_gone():
            raise failures.find_own_failure(folder, world_size) or failures.explain_killed_fork_server(folder) from None
        raise failures.determine_failure_cause(folder, world_size, error) from None
    except (OSError, EOFError) as error:
        if server.is_gone():  # while it was asked for a rank
            raise failures.explain_killed_fork_server(folder) from error
        raise
    except SignalException as stop:
        # The agent passed the signal on, and the ranks have saved what they could.
        code = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGUSR1: Exit.SAVED}.get(stop.sigval, Exit.TERMINATED)
        unsaved = MLScaleError(
            f"stopped by {stop.sigval.name}, nothing saved",
            where=str(folder),
            exit=code,
            fix="mlscale runs resume last: without a checkpoint it starts over",
        )
        raise failures.find_own_failure(folder, world_size) or unsaved from None


@dataclass(frozen=True)
class _ForkServer:
    """The process that forks ranks. If it is killed, the exit codes of its ranks are lost, and they end themselves."""

    pid: int | None
    started: int | None

    @classmethod
    def find_running(cls) -> _ForkServer:
        pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # no public name
        return cls(pid, process.read_start_ticks(pid) if pid else None)

    def is_gone(self) -> bool:
        return self.pid is not None and not process.is_alive(self.pid, self.started)


@contextlib.contextmanager
def _restore_signal_handlers(names: Sequence[str]) -> Iterator[None]:
    """Restore the signal handlers after the block: the agent does not, and a sweep continues after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.getsignal(signal.Signals[name]) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)


@contextlib.contextmanager
def _skip_main_import() -> Iterator[None]:
    """Keep ranks from importing the main script: without `if __name__ == "__main__":` it would run again in each."""
    before = spawn.get_preparation_data

    def build_preparation_data(name: str) -> dict[str, Any]:
        return {key: value for key, value in before(name).items() if not key.startswith("init_main")}

    spawn.get_preparation_data = build_preparation_data
    try:
        yield
    finally:
        spawn.get_preparation_data = before


@contextlib.contextmanager
def _kill_on_second_interrupt() -> Iterator[None]:
    """Kill the ranks at a second Ctrl-C; torch's agent would wait for them as long as they may take to save."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, sender = socket.socketpair()
    # As `set_wakeup_fd` demands: the signal handler that writes to it must never wait.
    sender.setblocking(False)

    def count_interrupts() -> None:
        interrupts = 0
        while arrived := heard.recv(64):  # a byte for each signal, its number
            interrupts += arrived.count(signal.SIGINT)
            if interrupts > 1:
                for rank in multiprocessing.active_children():
                    rank.kill()

    with heard, sender:
        # Written to at once, in C: a handler in Python runs only when the main thread is back in Python code.
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        listener = threading.Thread(target=count_interrupts, name="mlscale-interrupts", daemon=True)
        listener.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            # Makes `recv` return nothing, which ends the listener's loop.
            sender.shutdown(socket.SHUT_WR)
            listener.join()
