"""The fork server: what it starts for a user's code is not held back from stop signals, as ranks are."""

import multiprocessing
import os
import signal
import time

import pytest

from mlscale.errors import Exit
from mlscale.launch.local_launch import _wait_for_ranks, start_fork_server


def test_a_users_process_from_the_fork_server_is_ended_by_terminate() -> None:
    start_fork_server(2)
    process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(600,))
    process.start()
    process.terminate()
    process.join(60)
    ended = process.exitcode
    process.kill()
    process.join()
    assert ended == -signal.SIGTERM


@pytest.mark.parametrize(("code", "ended"), [(Exit.SAVED, 0), (Exit.TERMINATED, 0), (Exit.USER, -signal.SIGTERM)])
def test_only_a_failure_of_a_rank_ends_the_others(code: Exit, ended: int) -> None:
    """Of a stop, on which they agree, they may still have to save and to upload."""
    start_fork_server(2)
    context = multiprocessing.get_context("forkserver")
    first = context.Process(target=time.sleep, args=(3 if ended == 0 else 600,))
    # Not sys.exit, which W&B replaces for good in a process that has used it: then it can't be pickled.
    other = context.Process(target=os._exit, args=(int(code),))
    first.start()
    other.start()
    assert _wait_for_ranks([first, other], lambda: 0) == 1
    assert first.exitcode == ended
