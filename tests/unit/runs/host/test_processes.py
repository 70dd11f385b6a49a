"""Whether a process lives."""

import os
import subprocess
import sys

from mlscale.runs.host import processes as process


def test_this_process_lives() -> None:
    mine = process.identify_process()
    assert process.is_alive(mine["pid"], mine["pid_start"])
    assert not process.is_alive(mine["pid"], mine["pid_start"] + 1)  # another one that had the number before


def test_one_that_nobody_has_waited_for_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process.read_start_ticks(child.pid)
    assert process.is_alive(child.pid, started)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert not process.is_alive(child.pid, started)
    child.communicate()
    assert not process.is_alive(child.pid, started)
