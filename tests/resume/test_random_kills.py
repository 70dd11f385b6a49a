"""Runs killed at drawn moments in six layouts resume bitwise identical; `scripts/bench_resume.py` does it in long."""

import os
import shutil
from pathlib import Path

import pytest

from scripts.bench_resume import main
from scripts.resume_layouts import RANKS

KILLS = 16


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_in_every_layout(
    tmp_path: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLSCALE_CACHE", str(bundled))
    has_slurm = os.geteuid() == 0 and all(shutil.which(name) for name in ("slurmctld", "slurmd", "srun"))
    layouts = [layout for layout in RANKS if layout != "slurm" or has_slurm]
    code = main([f"--kills={KILLS}", f"--layouts={','.join(layouts)}", "--seed=1", f"--keep={tmp_path / 'bench'}"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert f"{KILLS} of {KILLS} identical" in printed
