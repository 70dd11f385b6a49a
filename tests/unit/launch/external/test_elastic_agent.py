"""The agent of one node ends with the exit code of its ranks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlscale.launch.external.elastic_agent import choose_exit_code

RANK = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def save(*_):
    time.sleep(0.5)
    (folder / f"saved-{os.environ['RANK']}").touch()
    sys.exit(143 if sys.argv[2:] == ["full"] else 75)
signal.signal(signal.SIGTERM, save)
if sys.argv[2:] == ["fail"]:
    sys.exit(5)
(folder / f"ready-{os.environ['RANK']}").touch()
time.sleep(120)
"""


@pytest.mark.parametrize(
    ("codes", "exit_code"),
    [
        ([75], 75),
        ([143, 75], 75),
        ([5, 75], 5),
        ([75, 5], 5),
        ([-9], 137),
        ([3], 3),
        ([143, 143], 143),
        ([], 75),
        ([-15, -15], 75),
        ([-15, 143], 143),
    ],
)
def test_the_exit_code_is_that_of_the_ranks(codes: list[int], exit_code: int) -> None:
    assert choose_exit_code(codes) == exit_code


def start_agent(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    (folder / "rank.py").write_text(RANK)
    sizes = ["--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    command = [
        sys.executable,
        "-m",
        "mlscale.launch.external.elastic_agent",
        *sizes,
        str(folder / "rank.py"),
        str(folder),
    ]
    return subprocess.Popen([*command, *words], stderr=subprocess.DEVNULL, env=dict(os.environ))


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code"), [((), 75), (("full",), 143)])
def test_a_signal_reaches_the_ranks_and_the_node_ends_with_75_once_they_have_saved(
    tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    agent = start_agent(tmp_path, *words)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("ready-*"))) < 2:
        assert time.monotonic() < deadline
        assert agent.poll() is None
        time.sleep(0.05)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(60) == code
    assert len(list(tmp_path.glob("saved-*"))) == 2


@pytest.mark.slow
def test_a_failure_keeps_its_exit_code(tmp_path: Path) -> None:
    assert start_agent(tmp_path, "fail").wait(120) == 5
