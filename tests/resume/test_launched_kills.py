"""Runs killed at drawn moments resume bitwise identical where torchrun or SLURM starts their ranks."""

import os
import shutil
from pathlib import Path

import pytest

from scripts.resume_layouts import RANKS, is_local
from tests.resume.test_random_kills import kill_runs


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_in_every_layout(
    tmp_path: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLSCALE_CACHE", str(bundled))
    has_slurm = os.geteuid() == 0 and all(shutil.which(name) for name in ("slurmctld", "slurmd", "srun"))
    layouts = [layout for layout in RANKS if not is_local(layout) and (layout != "slurm" or has_slurm)]
    kill_runs(layouts, 4, tmp_path, capsys)
