"""A rank tells what ended it."""

import resource
import subprocess
import sys
from pathlib import Path

from mlscale import commands

ROOM = 500 << 10  # bytes of one file: enough for a log, too few for a checkpoint


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


def test_a_run_that_could_save_nothing_is_told_as_the_disk_s(tmp_path: Path) -> None:
    commands.run_command("prepare", ["data=digits", f"data.root={tmp_path}/digits"])
    words = ["+recipe=resnet", "debug=fast", "snapshot=false", f"data.root={tmp_path}/digits"]
    command = [sys.executable, "-m", "mlscale", *words]
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=limited, capture_output=True, text=True, timeout=120)
    assert done.returncode == 5, done.stderr
    assert "warning   disk full: " in done.stderr
    assert "error: the final state of the run could not be saved: 2 saves failed" in done.stderr
    assert "why:   File too large" in done.stderr
    assert "fix:   free space there, then mlscale runs resume last, which starts it over" in done.stderr
