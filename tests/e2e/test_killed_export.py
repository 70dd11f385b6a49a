"""`mlscale export … check=server` that is killed by SIGKILL leaves neither its server nor folders behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale import commands
from mlscale.runs.host.processes import is_alive
from mlscale.targets.triton.install_server import VARIABLE
from tests.triton_server import find_triton

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the processes of a session are found by /proc"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Path:
    """The folder of a run of a few seconds on digits."""
    place = tmp_path_factory.mktemp("killed")
    options = ["+recipe=resnet", "trainer.max_epochs=1", "model.widths=[8,16]", "snapshot=false", "logger=none"]
    result = commands.run_command("train", [*options, f"runs_dir={place}/runs", f"data.root={bundled}"])
    return Path(result.artifacts["run"])


def list_processes(mark: str) -> set[int]:
    """The processes that have a text in their environment."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes() and is_alive(int(path.name), None):
                found.add(int(path.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 200.0) -> bool:
    """Whether a condition holds in time."""
    end = time.monotonic() + seconds
    while not (holds := bool(condition())) and time.monotonic() < end:
        time.sleep(0.05)
    return holds


def export(trained: Path, folder: Path, target: str) -> subprocess.Popen[bytes]:
    """Start the command, with a folder of its own for temporary files."""
    words = [f"target={target}", "check=server", f"to={folder}/served", "samples=50", "check_samples=1000"]
    # So long a load that it is killed while its server answers.
    words += ["slo.p99_ms=10000"]
    return subprocess.Popen(
        [sys.executable, "-m", "mlscale", "export", str(trained), *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": f"{folder}/temporary", "MLSCALE_TEST_MARK": str(folder)},
        start_new_session=True,
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("target", "sign"),
    [
        ("onnx", "mlscale-scratch-check-*"),  # it is about to start
        ("onnx", "mlscale-scratch-check-*/ready.json"),  # it answers
        ("triton", "mlscale-scratch-server-*"),
        ("triton", "mlscale-scratch-server-*/log"),
    ],
)
def test_sigkill_leaves_no_process_and_no_folder(
    trained: Path, folder: Path, target: str, sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target == "triton":
        monkeypatch.setenv(VARIABLE, str(find_triton()))
    temporary = folder / "temporary"
    temporary.mkdir()
    shared = set(os.listdir("/dev/shm"))
    command = export(trained, folder, target)
    assert wait_for(lambda: list(temporary.glob(sign)))
    if sign.endswith("log"):
        # Triton, its supervisor, and the models in Python that it has started by then.
        assert wait_for(lambda: len(list_processes(str(folder))) > 4)
        assert {name for name in set(os.listdir("/dev/shm")) - shared if "mlscale" in name}
    assert command.poll() is None
    command.kill()
    command.wait()
    assert wait_for(lambda: not list_processes(str(folder)))
    # Triton, which has no handler of SIGTERM while it loads its models, would leave their shared memory.
    assert wait_for(lambda: not {name for name in set(os.listdir("/dev/shm")) - shared if "mlscale" in name})
    assert {path.name for path in folder.iterdir()} > {"temporary"}  # the half-written servable
    assert export(trained, folder, target).wait() == 0
    assert sorted(path.name for path in folder.iterdir()) == ["served", "temporary"]
    assert not list(temporary.glob("mlscale-*"))
