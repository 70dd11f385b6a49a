"""Commands that end themselves, for the tests of this folder."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Checkpoints large enough that to write one takes a while, several of them an epoch, validation within it, and two
# passes per optimizer step.
WORDS = (
    "+recipe=resnet",
    "model=mlp",
    "model.hidden=[1000,1000]",
    "snapshot=false",
    "trainer.max_epochs=2",
    "trainer.accumulate_grad_batches=2",
    "++trainer.val_check_interval=0.5",
    "callbacks.checkpoint.every_n_steps=4",
)


def command(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Start mlscale in `folder`, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mlscale", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(folder: Path, *words: str, seconds: float = 120) -> tuple[int, str]:
    """The exit code of a command, and what it said."""
    with command(folder, *words) as process:
        out, err = process.communicate(timeout=seconds)
    return process.returncode, out + err


def end(moment: str, folder: Path, **arguments: object) -> str:
    """The setting that lets a run end itself at `moment`."""
    given = "".join(f",{name}:{value}" for name, value in arguments.items())
    return f"+callbacks.end={{_target_:tests.resume.killer.End,moment:{moment},folder:{folder / 'notes'}{given}}}"
