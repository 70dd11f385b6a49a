"""The fork server: what it starts for a user's code is not held back from stop signals, as ranks are."""

import multiprocessing
import signal
import time

from mlscale.launch.local_launch import start_fork_server


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
