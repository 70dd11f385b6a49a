"""The command line as a user has it: a process of its own, in a folder of theirs, without keys or a terminal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests import forked

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """A user's environment with a home of its own in `folder`: no keys, no settings of W&B, one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLSCALE_", "NETRC"))}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept |= {"HOME": str(home), "MLSCALE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return kept | variables


def mlscale(cwd: Path, *words: str, env: Mapping[str, str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `mlscale <words>` in `cwd`, with standard input closed."""
    return forked.run(*words, cwd=cwd, env=env, seconds=timeout)


def only_run(cwd: Path) -> Path:
    """The one run folder below `cwd`."""
    (manifest,) = cwd.glob("runs/*/*/run.json")
    return manifest.parent
