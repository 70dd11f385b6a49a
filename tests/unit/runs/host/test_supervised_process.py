"""A supervised process ends with its block, and with the process that started it, by SIGKILL, too."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.runs.host.processes import is_alive
from mlscale.runs.host.supervised_process import start_supervised

_START = """
import sys, time
from mlscale.runs.host.supervised_process import start_supervised
with open("log", "wb") as log, start_supervised(
    sys.argv[1:], grace_s=0.5, output=log, at_end=["touch", "ended"]
) as one:
    print(one.pid, flush=True)
    time.sleep(600)
"""
_TWO = "sleep 600 & echo $! > second; echo $$ > first.new; mv first.new first; "
"""A shell that notes its own number and that of a child."""


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether a condition holds in time."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return holds


def read_numbers(folder: Path) -> list[int]:
    """The two processes of a shell, once both run."""
    assert wait_for((folder / "first").exists)
    return [int((folder / name).read_text()) for name in ("first", "second")]


def start(folder: Path, script: str) -> "subprocess.Popen[str]":
    """A process that supervises a shell."""
    command = [sys.executable, "-c", _START, "sh", "-c", script]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("script", [f"{_TWO} wait", f"trap '' TERM; {_TWO} while :; do sleep 1; done"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_processes_end_with_the_one_that_started_them(tmp_path: Path, script: str, number: signal.Signals) -> None:
    starter = start(tmp_path, script)
    numbers = read_numbers(tmp_path)
    assert all(is_alive(pid, None) for pid in numbers)
    starter.send_signal(number)
    starter.communicate(timeout=60)
    assert wait_for(lambda: not any(is_alive(pid, None) for pid in numbers))
    # What it leaves behind is removed after it, by a process that nothing waits for.
    assert wait_for((tmp_path / "ended").exists)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no parent-death signal")
def test_a_process_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    starter = start(tmp_path, f"{_TWO} wait")
    first, second = read_numbers(tmp_path)
    assert starter.stdout is not None
    os.kill(int(starter.stdout.readline()), signal.SIGKILL)
    assert wait_for(lambda: not is_alive(first, None))
    os.kill(second, signal.SIGKILL)  # a child of its own is another matter
    starter.kill()
    starter.communicate()


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_its_exit_code_is_passed_on(tmp_path: Path, script: str, code: int) -> None:
    with (
        (tmp_path / "log").open("wb") as log,
        start_supervised(["sh", "-c", script], grace_s=1, output=log) as process,
    ):
        assert process.wait(30) == code


def test_it_ends_gracefully_with_its_block(tmp_path: Path) -> None:
    script = f"trap 'echo stopped; exit 0' TERM; {_TWO} while :; do sleep 0.05; done"
    with (
        (tmp_path / "log").open("wb") as log,
        start_supervised(["sh", "-c", script], grace_s=30, output=log, folder=tmp_path) as process,
    ):
        numbers = read_numbers(tmp_path)
    assert process.returncode == 0
    assert (tmp_path / "log").read_text() == "stopped\n"
    assert not any(is_alive(pid, None) for pid in numbers)


def test_signals_are_passed_on(tmp_path: Path) -> None:
    script = f"trap 'exit 7' USR1; {_TWO} while :; do sleep 0.05; done"
    with (
        (tmp_path / "log").open("wb") as log,
        start_supervised(["sh", "-c", script], grace_s=1, output=log, folder=tmp_path) as process,
    ):
        read_numbers(tmp_path)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 7
