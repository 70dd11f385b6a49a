"""A disk that is full while a run trains: a real one, of six megabytes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlscale import verbs
from mlscale.errors import Exit, MLScaleError
from mlscale.registry import LocalRegistry
from mlscale.runs.checkpoints import verify

ROOM = "6m"  # two checkpoints of the small ResNet with its momentum, and no third beside them


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "mlscale-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("file systems can't be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_training_goes_on_and_what_was_saved_stays(small_disk: Path, tmp_path: Path) -> None:
    verbs.call("prepare", ["data=digits", f"data.root={tmp_path}/digits"])
    words = [
        "+recipe=resnet", "debug=limit", "trainer.max_epochs=3", "snapshot=false",
        f"data.root={tmp_path}/digits", f"runs_dir={small_disk}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "mlscale", *words], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "warning   no room to save" in done.stderr
    assert "No space left on device" in done.stderr
    assert "what was saved before stays: best.ckpt, last.ckpt" in done.stderr
    assert "of a checkpoint found no room" in done.stdout
    assert "epoch 3/3" in done.stderr
    kept = list(small_disk.glob("*/*/checkpoints/*"))
    assert sorted(path.name for path in kept) == ["best.ckpt", "last.ckpt"]
    assert {verify(path).state for path in kept} == {"ok"}
    listed = subprocess.run(
        [sys.executable, "-m", "mlscale", "runs", "checkpoints", "last", "--root", str(small_disk)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert listed.returncode == 0
    assert "the run goes on from last.ckpt" in listed.stdout


def test_a_version_that_finds_no_room_is_not_there(small_disk: Path, tmp_path: Path) -> None:
    registry = LocalRegistry(small_disk / "registry")
    for number in range(3):
        (tmp_path / "model").write_bytes(bytes([number]) * 2_500_000)
        try:
            registry.publish("resnet", {"model": tmp_path / "model"}, kind="checkpoint", aliases=["champion"])
        except MLScaleError as error:
            told = error
    assert (told.exit, told.why) == (Exit.ENVIRONMENT, "No space left on device")
    assert "registry.root=" in told.fix
    assert [version.number for version in registry.versions("resnet")] == [1, 2]
    assert registry.fetch("resnet@champion").number == 2
    assert (len(list(small_disk.rglob("model"))), len(list(small_disk.rglob(".aside-*")))) == (2, 0)
