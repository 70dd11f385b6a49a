"""Prometheus' own checker, from Debian's package `promtool`."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool to check with: apt-get install promtool"
)


def run_promtool(*words: str, text: str = "", folder: Path | None = None) -> str:
    """Run it, and return what it prints; fails where it finds anything wrong."""
    done = subprocess.run(["promtool", *words], input=text, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
