"""A disk that is full while a run trains: a real one, of six megabytes."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlscale import commands
from mlscale.atomic_files import create_write_error
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.folder import RunFolder
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.versions import LocalRegistry
from tests import forked

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


@pytest.mark.slow
def test_the_training_goes_on_and_ends_resumable(small_disk: Path, tmp_path: Path) -> None:
    commands.run_command("prepare", ["data=digits", f"data.root={tmp_path}/digits"])
    words = [
        "+recipe=resnet", "debug=limit", "trainer.max_epochs=3", "snapshot=false",
        f"data.root={tmp_path}/digits", f"runs_dir={small_disk}",
    ]  # fmt: skip
    done = forked.run(*words, cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert "warning   disk full: " in done.stderr
    assert "No space left on device" in done.stderr
    assert "what was saved before stays: best.ckpt, last.ckpt" in done.stderr
    assert "error: the final state of the run could not be saved: " in done.stderr
    # With the folder of this run: without it the command would mean another one.
    assert f"mlscale runs resume runs_dir={small_disk} last, once there is space: it resumes from" in done.stderr
    assert "epoch 3/3" in done.stderr
    kept = list(small_disk.glob("*/*/checkpoints/*"))
    assert sorted(path.name for path in kept) == ["best.ckpt", "last.ckpt"]
    assert {verify_checkpoint(path).state for path in kept} == {"ok"}
    listed = forked.run("runs", "checkpoints", "last", f"runs_dir={small_disk}", cwd=tmp_path)
    assert listed.returncode == 0
    assert "the run resumes from last.ckpt" in listed.stdout
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    resumed = forked.run(*words, "resume=auto", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from step " in resumed.stdout
    assert "bitwise identical" in resumed.stdout
    assert len(list(small_disk.glob("*/*/run.json"))) == 1


def test_missing_inodes_are_reported_as_such(small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=100m,nr_inodes=40", str(small_disk)], check=True)
    (small_disk / "runs").mkdir()
    for number in range(40):
        try:
            (small_disk / f"{number}").touch()
        except OSError as full:
            reported = create_write_error(small_disk / "runs/new", full)
            break
    assert reported.exit == Exit.ENVIRONMENT
    assert "no free inodes" in reported.why
    io = VerifiedCheckpointIO()
    io.save_checkpoint({"state_dict": {}, "global_step": 3}, small_disk / "runs/last.ckpt")
    lost = io.explain_lost_state()
    assert lost is not None
    assert "no free inodes" in lost.why
    (small_disk / "0").unlink()
    io.save_checkpoint({"state_dict": {}, "global_step": 4}, small_disk / "runs/last.ckpt")
    assert verify_checkpoint(small_disk / "runs/last.ckpt").state == "ok"
    for name in ("1", "2", "3"):  # enough for a run's folder, not for what is in it
        (small_disk / name).unlink()
    with pytest.raises(MLScaleError, match="can't write") as caught:
        RunFolder.create(small_disk / "other", "new", command="train", config_yaml="seed: 1\n")
    assert "no free inodes" in caught.value.why
    assert not (small_disk / "other").exists()


@pytest.mark.slow
def test_a_disk_that_becomes_read_only_leaves_a_run_to_resume(small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    words = [
        "+recipe=resnet", "model=mlp", "debug=limit", "trainer.max_epochs=2", "snapshot=false",
        f"runs_dir={small_disk}", "resume=auto",
    ]  # fmt: skip
    (tmp_path / "closing.py").write_text(CLOSING)
    closing = f"+callbacks.closing={{_target_:closing.Closing,folder:{small_disk},note:{tmp_path}/note}}"
    done = forked.run(*words, closing, cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    resumed = forked.run(*words, closing, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from step " in resumed.stdout
    assert len(list(small_disk.glob("*/*/run.json"))) == 1


CLOSING = """
import subprocess
import time
from pathlib import Path
import pytorch_lightning as pl


class Closing(pl.Callback):
    def __init__(self, folder, note):
        self.folder, self.note = folder, Path(note)

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1 and not self.note.exists():
            self.note.touch()
            # Busy for as long as a checkpoint is written in the background.
            while subprocess.run(["mount", "-o", "remount,ro", self.folder]).returncode:
                time.sleep(0.05)
"""


def test_a_version_that_finds_no_room_is_not_there(small_disk: Path, tmp_path: Path) -> None:
    registry = LocalRegistry(small_disk / "registry")
    for number in range(3):
        (tmp_path / "model").write_bytes(bytes([number]) * 2_500_000)
        try:
            registry.publish("resnet", {"model": tmp_path / "model"}, kind="checkpoint", aliases=["champion"])
        except MLScaleError as error:
            reported = error
    assert (reported.exit, reported.why) == (Exit.ENVIRONMENT, "No space left on device")
    assert "registry.root=" in reported.fix
    assert [version.number for version in registry.list_versions("resnet")] == [1, 2]
    assert registry.fetch("resnet@champion").number == 2
    assert (len(list(small_disk.rglob("model"))), len(list(small_disk.rglob(".aside-*")))) == (2, 0)
