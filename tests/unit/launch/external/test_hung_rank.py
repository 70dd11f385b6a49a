"""A rank that hangs ends itself once another one has failed; a rank that ends by itself is left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, threading, time
from pathlib import Path
from mlscale.launch import hung_process
hung_process._GRACE_SECONDS, hung_process._POLL_SECONDS = 0.5, 0.1
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
with hung_process.end_if_hung(folder, 1):
    time.sleep(seconds)
time.sleep(1.0)
print("ended by itself")
"""


def run_rank(folder: Path, seconds: float) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", SCRIPT, str(folder), str(seconds)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("failed", "seconds", "code"),
    [(True, 100.0, 5), (True, 0.0, 0), (False, 1.5, 0)],
)
def test_a_rank_is_ended_if_it_hangs_after_a_failure(tmp_path: Path, failed: bool, seconds: float, code: int) -> None:
    (tmp_path / "logs").mkdir()
    if failed:
        (tmp_path / "logs/rank0-failure.json").write_text('{"exit": 5}')
    done = run_rank(tmp_path, seconds)
    assert done.returncode == code, done.stderr
    assert ("rank 1 hangs" in done.stderr) is (code == 5)
    assert ("ended by itself" in done.stdout) is (code == 0)
