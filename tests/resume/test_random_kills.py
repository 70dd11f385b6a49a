"""Runs killed at drawn moments in six layouts resume bitwise identical; `scripts/bench_resume.py` does it in long.

Here the layouts whose ranks mlscale starts; `test_launched_kills.py`, for another test process, has the others.
"""

from pathlib import Path

import pytest

from scripts.bench_resume import main
from scripts.resume_layouts import RANKS, is_local


def kill_runs(layouts: list[str], kills: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kill runs in these layouts, in turn, and expect that each resumes as if nothing had been."""
    code = main([f"--kills={kills}", f"--layouts={','.join(layouts)}", "--seed=1", f"--keep={folder / 'bench'}"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert f"{kills} of {kills} identical" in printed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_in_every_layout(
    tmp_path: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLSCALE_CACHE", str(bundled))
    kill_runs([layout for layout in RANKS if is_local(layout)], 6, tmp_path, capsys)
