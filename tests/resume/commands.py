"""Commands that end themselves, for the tests of this folder."""

import os
from pathlib import Path

from tests.forked import Command

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


def command(folder: Path, *words: str) -> Command:
    """Start mlscale in `folder`, in a session of its own."""
    return Command(*words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)


def ended(folder: Path, *words: str, seconds: float = 120) -> tuple[int, str]:
    """The exit code of a command, and what it said."""
    with command(folder, *words) as process:
        out, err = process.communicate(timeout=seconds)
    return process.returncode, out + err


def end(moment: str, folder: Path, **arguments: object) -> str:
    """The setting that lets a run end itself at `moment`."""
    given = "".join(f",{name}:{value}" for name, value in arguments.items())
    return f"+callbacks.end={{_target_:tests.resume.killer.End,moment:{moment},folder:{folder / 'notes'}{given}}}"
