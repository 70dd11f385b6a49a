"""SIGTERM and Ctrl-C to the command, with one process and with two: saved, sealed, and the exit code says which."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import runs_in

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def started(folder: Path, devices: int) -> Iterator["subprocess.Popen[str]"]:
    """A command that has trained its first step, and would go on for hours."""
    mark = folder / "started"
    words = ["+recipe=resnet", "model=mlp", "snapshot=false", "trainer.max_epochs=100000", f"trainer.devices={devices}"]
    words.append(f"+callbacks.started={{_target_:tests.dist.recorder.Started,path:{mark}}}")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlscale", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 120
        while not mark.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("signum", "devices"),
    [
        (signal.SIGTERM, 1),
        (signal.SIGINT, 2),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
    ],
)
def test_it_stops_politely(folder: Path, signum: signal.Signals, devices: int) -> None:
    with started(folder, devices) as process:
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, err
    assert err.count(f"error: stopped by {signum.name} after optimizer step ") == 1, err
    assert "Traceback" not in err
    assert "death signal" not in err  # what the agent logs
    (run,) = runs_in(folder)
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert f"after optimizer step {state['global_step']}, saved to {run}/checkpoints/last.ckpt" in err
    assert json.loads((run / "manifest.json").read_text())["status"] == "interrupted"
