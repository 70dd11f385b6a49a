"""Several processes of `mlscale predict`: started, listened to, and ended together."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlscale.commands.predict.rank_worker import PredictWork, rank_main
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

_LISTEN_SECONDS = 0.5


def score_in_processes(work: PredictWork, world_size: int, progress: Callable[[int, int], None]) -> None:
    """Score in `world_size` processes, each its own parts; they are independent of each other.

    Raises:
        MLScaleError: the error of one of them, or which of them died, and the cause (exit code 5). The others are
            ended: what they have committed stays.
    """
    # Not fork: the parent may have started threads, whose locks a forked child would inherit. Not spawn: each child
    # would import torch again.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlscale.assembly.preload"] if work.servable is None else ["numpy", "pyarrow"])
    messages: Any = context.Queue()
    environment = dict(os.environ)
    ranks = [
        context.Process(
            target=rank_main,
            args=(work, rank, world_size, os.getpid(), environment, messages),
            name=f"mlscale-predict-{rank}",
        )
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    try:
        _receive_messages(ranks, messages, progress)
    finally:
        for rank in ranks:
            if rank.is_alive():
                # All get the signal before any is waited for, so that they end at the same time.
                rank.terminate()
        for rank in ranks:
            rank.join()


def _receive_messages(ranks: list[Any], messages: Queue[Any], progress: Callable[[int, int], None]) -> None:
    running = set(range(len(ranks)))
    while running:
        try:
            word, first, second = messages.get(timeout=_LISTEN_SECONDS)
        except queue.Empty:
            # Only when the queue is empty: a process that has ended may have left its last messages there.
            _raise_if_died(ranks, running)
            continue
        if word == "rows":
            progress(first, second)
        elif word == "done":
            running.discard(first)
        else:
            raise MLScaleError(**{**second, "exit": Exit(second["exit"])})


def _raise_if_died(ranks: list[Any], running: set[int]) -> None:
    """Raise an error if a process has ended without a message."""
    for number in sorted(running):
        code = ranks[number].exitcode
        if code is not None:
            by = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise MLScaleError(
                f"process {number} of {len(ranks)} died: {by}",
                why="out of memory, perhaps, or it was killed" if code < 0 else "",
                fix="batch=16, which takes less memory: the command resumes with what is missing",
                exit=Exit.ENVIRONMENT,
            )
