"""SIGTERM and Ctrl-C to the command, with one process and with two: saved, sealed, and the exit code says which."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import runs_in
from tests.forked import Command

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def started(folder: Path, devices: int, *more: str) -> Iterator[Command]:
    """A command that has trained its first step, and would go on for hours."""
    mark = folder / "started"
    words = ["+recipe=resnet", "model=mlp", "snapshot=false", "trainer.max_epochs=100000", f"trainer.devices={devices}"]
    words.append(f"+callbacks.started={{_target_:tests.dist.recorder.Started,path:{mark}}}")
    process = Command(*words, *more, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
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


@pytest.mark.slow
def test_a_second_ctrl_c_waits_for_nothing(folder: Path) -> None:
    """Also where two ranks sit in a step that takes long."""
    (folder / "slow.py").write_text(
        "import time\nfrom pathlib import Path\nimport pytorch_lightning as pl\n\n\nclass Slow(pl.Callback):\n"
        "    def on_train_batch_start(self, trainer, *args):\n"
        "        if trainer.global_step == 3:\n"
        "            Path(f'slow-{trainer.global_rank}').touch()\n"
        "            time.sleep(300)\n"
    )
    with started(folder, 2, "+callbacks.slow={_target_:slow.Slow}") as process:
        while len(list(folder.glob("slow-*"))) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert process.poll() is None, "it is still asking politely"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "stopped by a second SIGINT, in the middle of a step" in err
    assert "no checkpoint is there" in err
