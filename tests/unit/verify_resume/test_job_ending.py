"""A job is ended by signal, grace period and SIGKILL; one that is slower is measured, and leaves what a kill does."""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlscale.verify_resume.platform_rules import JobEnding, PlatformRules, end_job
from mlscale.verify_resume.played_node import PlayedNode, build_host_prefix, can_change_host, play_node
from tests.unit.verify_resume.rules import make_rules

# Saves after a signal for as long as the second argument says: first half of a file, then the whole.
JOB = """
import signal, sys, time
from pathlib import Path
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
def save(*_):
    (folder / "state").write_text("half")
    time.sleep(seconds)
    (folder / "state").write_text("whole")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / "ready").touch()
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PlayedNode]:
    with play_node("node-1", tmp_path / "node.log") as played:
        yield played


def end_after(node: PlayedNode, runs: Path, seconds: float, rules: PlatformRules, limit_s: float = 20) -> JobEnding:
    node.start_commands([[sys.executable, "-c", JOB, str(runs), str(seconds)]], [dict(os.environ)])
    deadline = time.monotonic() + 20
    while not (runs / "ready").exists():
        assert time.monotonic() < deadline, node.read_log()
        time.sleep(0.02)
    return end_job(node, rules, runs, limit_s, lambda: None)


def test_a_job_that_saves_in_time_ends_by_itself(node: PlayedNode, runs: Path) -> None:
    ending = end_after(node, runs, 0.2, make_rules(grace_s=20.0))
    assert ending.code == 75
    assert ending.needed_s is not None
    assert 0.2 <= ending.needed_s < 20
    assert (runs / "state").read_text() == "whole"


def test_a_job_that_is_too_slow_is_measured_and_leaves_what_it_had_when_it_was_killed(
    node: PlayedNode, runs: Path
) -> None:
    ending = end_after(node, runs, 2.0, make_rules(grace_s=0.5))
    assert ending.code is None
    assert ending.is_complete
    assert ending.needed_s is not None
    assert ending.needed_s >= 1.5  # of two seconds, counted from when the signal was sent, or noticed late
    assert (runs / "state").read_text() == "half"
    assert not list(runs.parent.glob("*.at-kill"))


def test_a_job_that_never_ends_is_given_up(node: PlayedNode, runs: Path) -> None:
    ending = end_after(node, runs, 60.0, make_rules(grace_s=0.2), limit_s=1.0)
    assert not ending.is_complete
    assert node.get_exit_code() == -signal.SIGKILL


def test_without_a_signal_it_is_killed_at_once(node: PlayedNode, runs: Path) -> None:
    assert end_after(node, runs, 0.0, make_rules(signal_name="none")) == JobEnding(None, None)
    assert not (runs / "state").exists()


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare here")
def test_a_node_has_a_host_name_of_its_own(node: PlayedNode) -> None:
    if not can_change_host():
        pytest.skip("namespaces of host names are not allowed here")
    assert build_host_prefix("node-1")[-1] == "node-1"
    node.start_commands([["hostname"]], [dict(os.environ)])
    node.processes[0].wait(20)
    assert node.read_log().strip() == "node-1"


def test_children_in_sessions_of_their_own_are_killed_with_the_node(node: PlayedNode, tmp_path: Path) -> None:
    script = "setsid sleep 300 & echo $! > child; wait"
    node.start_commands([["sh", "-c", f"cd {tmp_path}; {script}"]], [dict(os.environ)])
    deadline = time.monotonic() + 20
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = int((tmp_path / "child").read_text())
    node.kill_all()
    status = Path(f"/proc/{child}/stat")
    with contextlib.suppress(FileNotFoundError):
        while status.read_text().rpartition(")")[2].split()[0] not in "ZX":  # the signal is on its way
            assert time.monotonic() < deadline
            time.sleep(0.02)
