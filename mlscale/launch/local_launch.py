"""Start one process per device on this machine, from the run folder, and report how they ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection as connections
from multiprocessing import forkserver, spawn
from pathlib import Path
from typing import Any

from mlscale.errors import STOPS
from mlscale.launch import rank_failures as failures
from mlscale.launch.garbage_collection import is_own_process
from mlscale.runs.host import processes as process
from mlscale.runs.host.processes import block_stop_signals

RankMain = Callable[[str, Mapping[str, str], str, int], None]
PRELOAD = "mlscale.assembly.preload"  # by name: the fork server imports it
_END_WITH_PARENT = "mlscale.launch.parent_death"
_HOST = "localhost"
_SAVE_SECONDS = 600  # the time that ranks have after a stop signal for their last step and checkpoint
_END_SECONDS = 30  # the time that they have after the failure of another one
_LISTEN_SECONDS = 0.1


def start_fork_server(devices: object, *, as_children: bool = False) -> None:
    """Start the fork server for more than one process now, so that it imports torch while this process does.

    Stop signals are blocked in it, and in the ranks until they handle them: one that is sent to the whole process
    group, as `timeout` and systemd do, ends neither, and is not lost.

    Args:
        as_children: also a single process is forked.
    """
    if isinstance(devices, int) and (devices > 1 or as_children):
        # The system ends it with the *thread* that has started it.
        ends_with_thread = is_own_process() and threading.current_thread() is threading.main_thread()
        multiprocessing.set_forkserver_preload([*[_END_WITH_PARENT] * ends_with_thread, PRELOAD])
        with block_stop_signals():
            forkserver.ensure_running()


def launch_ranks(main: RankMain, folder: Path, world_size: int, checkpoint: Path | None = None) -> None:
    """Run `main` in `world_size` processes, which train the run in `folder`, from the start or from `checkpoint`.

    Ranks are forked from a fork server that has imported torch and Lightning and computed nothing: they start in a
    second or two whatever this process has done before. The server may be older than the folder, so the secrets that
    the folder refers to are passed with the call. A stop signal is passed on to all of them.

    Args:
        main: the entry of a rank; it gets the folder, this process's environment, the checkpoint ('' for none) and
            this process's id.

    Raises:
        MLScaleError: the error of a rank, which may be a stop by a signal; or the rank that died, and its cause.
    """
    start_fork_server(world_size, as_children=True)
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not listed

    from mlscale.train import graceful_stop

    failures.clear_rank_failures(folder)
    server = _ForkServer.find_running()
    # Port 0: the system picks a free one: several runs can start at once, and no other program takes it before rank 0.
    store = TCPStore(_HOST, 0, is_master=True, timeout=timedelta(minutes=10), wait_for_workers=False)
    context = multiprocessing.get_context("forkserver")
    ranks: list[Any] = []
    with graceful_stop.handle_stop_signals(folder, on_second="raise"), _skip_main_import():
        try:
            for rank in range(world_size):
                environment = {**os.environ, **_build_rank_variables(rank, world_size, store.port)}
                words = (str(folder), environment, str(checkpoint or ""), os.getpid())
                ranks.append(context.Process(target=main, args=words, name=f"mlscale-rank-{rank}"))
                ranks[-1].start()
            failed = _wait_for_ranks(ranks, graceful_stop.get_received_signal)
        except (OSError, EOFError) as error:
            if server.is_gone():  # while it was asked for a rank
                raise failures.explain_killed_fork_server(folder) from error
            raise
        finally:
            _kill_all(ranks)
        stopped_by = graceful_stop.get_received_signal()
    if failed is None:
        return
    if own := failures.find_own_failure(folder, world_size):
        raise own
    # A killed fork server closes its connections, of which multiprocessing makes 255, a moment before it is gone.
    end = time.monotonic() + (5 if ranks[failed].exitcode == 255 else 0)
    while not server.is_gone() and time.monotonic() < end:
        time.sleep(_LISTEN_SECONDS)
    if server.is_gone():
        raise failures.explain_killed_fork_server(folder)
    if stopped_by:
        raise failures.explain_unsaved_stop(folder, signal.Signals(stopped_by))
    raise failures.determine_failure_cause(folder, world_size, failed, ranks[failed].exitcode)


def _build_rank_variables(rank: int, world_size: int, port: int) -> dict[str, str]:
    """Return the variables of a rank: those that torchrun sets, and that Lightning and torch read."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "mlscale",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def _wait_for_ranks(ranks: list[Any], get_received_signal: Callable[[], int]) -> int | None:
    """Wait until all ranks have ended; return the first one that failed, or None.

    A stop signal is passed on to all, once, and after a failure the others are ended; where one was stopped, as by
    `trainer.max_time`, the others are, too.
    """
    failed: int | None = None
    is_ending, deadline = False, float("inf")
    while running := [rank for rank in ranks if rank.exitcode is None]:
        connections.wait([rank.sentinel for rank in running], _LISTEN_SECONDS)
        failed = _find_failed(ranks) if failed is None else failed
        stop = get_received_signal()
        # Ranks agree to stop, so the others end by themselves, once they have saved and uploaded.
        have_agreed = failed is not None and ranks[failed].exitcode in STOPS
        if not is_ending and (stop or failed is not None):
            is_ending = True
            deadline = time.monotonic() + (_SAVE_SECONDS if stop or have_agreed else _END_SECONDS)
            for rank in [] if have_agreed else running:
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(rank.pid, stop or signal.SIGTERM)
        if time.monotonic() > deadline:
            _kill_all(running)
    return _find_failed(ranks) if failed is None else failed


def _find_failed(ranks: list[Any]) -> int | None:
    return next((number for number, rank in enumerate(ranks) if rank.exitcode), None)


def _kill_all(ranks: list[Any]) -> None:
    for rank in ranks:
        if rank.pid is not None and rank.exitcode is None:
            rank.kill()
            rank.join()


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
