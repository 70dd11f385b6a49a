"""A run that waits to be killed ends by itself where the process that would kill it has ended."""

import signal
import subprocess
import sys
from pathlib import Path

ORDER = """
import sys
from pathlib import Path
from mlscale.verify_resume.stop_request import write_stop_order
write_stop_order(Path(sys.argv[1]), "step", 3)
"""
RUN = """
import sys, time
from pathlib import Path
from mlscale.verify_resume.trace import KillPointHalt
KillPointHalt(Path(sys.argv[1]))
time.sleep(60)
"""


def test_a_run_whose_owner_has_ended_ends(tmp_path: Path) -> None:
    folder = str(tmp_path / "trace")
    assert subprocess.run([sys.executable, "-c", ORDER, folder], check=False).returncode == 0
    assert subprocess.run([sys.executable, "-c", RUN, folder], check=False).returncode == -signal.SIGKILL
