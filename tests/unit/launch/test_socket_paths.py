"""A long TMPDIR, as of a cluster's job, breaks neither the fork server nor the workers of a DataLoader."""

from __future__ import annotations

import multiprocessing.process
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.launch import socket_paths as sockets
from tests.contract.commands import ROOT

SCRIPT = """
import multiprocessing, os, sys, tempfile
from multiprocessing import connection
from mlscale.launch.socket_paths import shorten_socket_paths

def listen(queue=None):
    with connection.Listener(family="AF_UNIX") as listener:
        place = os.path.dirname(listener.address)
    queue.put(place) if queue else None
    return place

if __name__ == "__main__":
    shorten_socket_paths()
    places = [listen()]
    shorten_socket_paths()
    places.append(listen())
    for method in ("forkserver", "fork"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        child = context.Process(target=listen, args=(queue,))
        child.start()
        places.append(queue.get(timeout=60))
        child.join()
    assert tempfile.gettempdir() == os.environ["TMPDIR"]
    print("\\n".join(places))
"""


def listened(folder: Path, temporary: Path) -> list[str]:
    """The folders in which a process and those that it starts listen."""
    temporary.mkdir(parents=True, exist_ok=True)
    (folder / "listens.py").write_text(SCRIPT)
    env = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "listens.py"], cwd=folder, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("length", [90, 107, 108, 200])
def test_sockets_have_one_short_folder_that_is_removed(tmp_path: Path, length: int) -> None:
    temporary = tmp_path / ("x" * (length - len(str(tmp_path)) - 1) or "x")
    places = listened(tmp_path, temporary)
    assert len(places) == 4
    assert len(set(places)) == 1
    assert Path(places[0]).parent == Path("/tmp")
    assert not Path(places[0]).exists()


def test_a_short_tmpdir_is_used(tmp_path: Path) -> None:
    short = Path("/tmp") / f"mlscale-test-{os.getpid()}"
    try:
        assert all(place.startswith(str(short)) for place in listened(tmp_path, short))
    finally:
        short.rmdir()


def test_folders_that_can_not_be_written_to_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]  # no public name
    monkeypatch.delitem(config, "tempdir", raising=False)  # which a test before this one may have had made
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 100)))
    monkeypatch.setattr(sockets, "_SHORT_FOLDERS", (str(tmp_path / "absent"),))
    with pytest.raises(MLScaleError, match="no folder for the sockets") as caught:
        sockets.shorten_socket_paths()
    assert caught.value.exit == Exit.ENVIRONMENT
    assert "absent: No such file or directory" in caught.value.why
