"""A run that was asked to stop, by signal or by trainer.max_time, says so by its exit code and goes on to the bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.resume_layouts import PARTS, find_reference_layout, list_typed_words
from scripts.same_run import differences
from scripts.signal_matrix import CASES, CODES, Stop, find_problems
from tests.conftest import runs_in
from tests.resume.commands import ROOT, WORDS, command, end, ended

SLOW = pytest.mark.slow


# The three that differ most; the rest of the matrix is slow.
FAST = {
    (signal.SIGTERM, "command", "1"),
    (signal.SIGHUP, "group", "2"),
    (signal.SIGUSR1, "group", PARTS),
}


@pytest.mark.parametrize(
    ("signum", "receiver", "layout"),
    [pytest.param(*case, marks=() if case in FAST else SLOW) for case in CASES],
)
def test_a_stop_signal(
    folder: Path, undisturbed: Callable[[str], Path], signum: signal.Signals, receiver: str, layout: str
) -> None:
    stop = end("stop", folder, whom=receiver, signum=int(signum))
    code, printed = ended(folder, *WORDS, *list_typed_words(layout), stop)
    assert code == CODES[signum], printed
    assert printed.count(f"error: stopped by {signum.name} after optimizer step ") == 1, printed
    assert "fix:   mlscale runs resume last" in printed
    assert "starts over" not in printed
    assert ended(folder, "runs", "resume", "last", "trust=true")[0] == 0
    (run,) = runs_in(folder)
    assert differences(undisturbed(find_reference_layout(layout)), run) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_start_is_as_promised(folder: Path, signum: signal.Signals) -> None:
    process, end_of_wait = command(folder, *WORDS), time.monotonic() + 60
    while not int(find_mask(process.pid, "SigCgt"), 16) >> (signum - 1) & 1 and time.monotonic() < end_of_wait:
        time.sleep(0.01)
    process.send_signal(signum)
    (folder / "output").write_text(process.communicate()[1])
    assert "no training was running" in (folder / "output").read_text()
    assert find_problems(folder, process.returncode, Stop(signum, "command", "1", "start-up")) == []


def find_mask(pid: int, name: str) -> str:
    """Return a mask of signals of a process, hexadecimal: those that it handles, `SigCgt`."""
    return Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0]


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=SLOW)])
def test_what_nohup_ignores_stays_ignored(folder: Path, devices: int) -> None:
    stop = end("stop", folder, whom="group", signum=int(signal.SIGHUP))
    words = [*WORDS, f"trainer.devices={devices}", "trainer.max_epochs=1", stop]
    command = ["nohup", sys.executable, "-m", "mlscale", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, start_new_session=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "notes/ended").exists()


@SLOW
@pytest.mark.parametrize("devices", [1, 2])
def test_max_time_is_that_of_each_attempt(folder: Path, undisturbed: Callable[[str], Path], devices: int) -> None:
    words = (*WORDS, f"trainer.devices={devices}", "trainer.max_time=00:00:00:00")
    code, printed = ended(folder, *words)
    assert code == 75, printed
    assert "stopped by trainer.max_time after optimizer step 1, saved to " in printed
    code, printed = ended(folder, "runs", "resume", "last")  # it takes one more step, and its time is up again
    assert code == 75, printed
    assert ended(folder, "runs", "resume", "last", "trainer.max_time=null")[0] == 0
    (run,) = runs_in(folder)
    assert differences(undisturbed(str(devices)), run) == []


def test_of_two_that_start_at_once_one_trains(folder: Path) -> None:
    words = ("+recipe=resnet", "model=mlp", "snapshot=false", "trainer.max_epochs=8", "resume=auto")
    both = [command(folder, *words) for _ in range(2)]
    printed = {process.wait(): process.communicate()[1] for process in both}
    assert sorted(printed) == [0, 2], printed
    assert "another process is working on the run" in printed[2]
    assert len(runs_in(folder)) == 1


def test_a_refused_start_leaves_nothing(folder: Path) -> None:
    code, printed = ended(folder, "+recipe=resnet", "model._target_=torch.nn.Linear", "resume=auto")
    assert code == 2, printed
    assert list(folder.iterdir()) == []


@SLOW
def test_of_two_that_go_on_with_a_run_one_wins(folder: Path) -> None:
    words = (*WORDS, "trainer.max_epochs=20", end("step", folder))
    code, printed = ended(folder, *words)
    assert code == -signal.SIGKILL, printed
    both = [command(folder, "runs", "resume", "last", "trust=true") for _ in range(2)]
    printed_by = {process.wait(): process for process in both}
    assert sorted(printed_by) == [0, 2]
    assert "another process is working on the run" in printed_by[2].communicate()[1]
    (run,) = runs_in(folder)
    assert "resumed from step 4 bitwise identical" in printed_by[0].communicate()[0]
    assert len(list(run.glob("results/train.json"))) == 1
