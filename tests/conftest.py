"""For all tests: OpenMP threads that do not spin. For tests of whole commands: a folder to stand in, one data cache."""

import sys
from pathlib import Path

import pytest

from mlscale.launch.threads import wait_passively

wait_passively()  # said before anything imports torch


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of all commands: digits are written once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in, with one thread each."""
    monkeypatch.setenv("MLSCALE_CACHE", str(bundled))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))  # a command puts the folder it stands in there
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs_in(folder: Path) -> list[Path]:
    """The run folders below `folder`, oldest first."""
    return sorted((path.parent for path in folder.rglob("run.json")), key=lambda path: path.name.rsplit("-", 1)[-1])
