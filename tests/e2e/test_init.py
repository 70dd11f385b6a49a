"""The project that `mlscale init` writes trains, and passes what its CI runs, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_project_passes_its_own_ci(folder: Path) -> None:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}

    def runs(command: str, where: Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["bash", "-c", command], cwd=where, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    runs("mlscale init my-net", folder)
    project = folder / "my-net"
    ci = (project / ".github/workflows/ci.yml").read_text()
    assert "run: bash ci.sh" in ci
    checked = runs("bash ci.sh", project).stdout
    assert "5 passed" in checked
    trained = runs("mlscale recipe=my_net output=json", project).stdout
    assert '"verb": "train"' in trained
    assert float(trained.split('"best_val/accuracy": ')[1].split(",")[0]) > 0.97
    assert (project / "runs").is_dir()
