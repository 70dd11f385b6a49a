"""The record of a checkpoint, the states of its file, and the layout of the comment that holds the record.

A checkpoint is the ZIP archive that `torch.save` writes. Its comment, a field that every reader of archives skips,
holds a record (contract 'checkpoint') and the SHA-256 of all bytes before the digest. So there is one file, which
one rename replaces: whenever a process is killed, a name holds the old checkpoint or the new one, each whole and with
its digest, and `cp` takes the digest along. Nothing in this package needs torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SUFFIX = ".ckpt"
PERIODIC = re.compile(rf"step=\d+{re.escape(SUFFIX)}")
"""The file names of periodic checkpoints, written every N steps or minutes."""
CheckpointKind = Literal["best", "last", "periodic", "other"]
CheckpointState = Literal["ok", "torn", "altered", "unsigned"]
LENGTH_BYTES = 2  # the comment's length, the last field before the comment
DIGEST_BYTES = 64


@dataclass(frozen=True)
class CheckpointRecord:
    """The metadata in a checkpoint; the fields of the contract 'checkpoint'.

    Attributes:
        kind: the policy that wrote it.
        step: optimizer steps of the run so far.
        epoch: epochs that had ended when it was saved.
        resumable: True if it holds the state of the training, not only weights.
        metric, value: what the callback that wrote it watches, and its value then.
        time: ISO 8601, with its time zone.
        bytes: of the archive, without the record; set when it is committed.
        run: the id of the run that it is of; None where that is not recorded.
        config_hash: of what that run computes.
        parts: of a sharded checkpoint: SHA-256 of the list of its parts.
    """

    kind: CheckpointKind
    step: int
    epoch: int
    resumable: bool = True
    metric: str | None = None
    value: float | None = None
    time: str = ""
    bytes: int = 0
    run: str | None = None
    config_hash: str | None = None
    parts: str | None = None

    def explain_mismatch(self, run: str, config_hash: str) -> str:
        """Return why it is not a checkpoint of that run; empty where it is, and where it does not name its run."""
        if self.run not in (None, run):
            return f"it is of the run {self.run}"
        if self.config_hash not in (None, config_hash):
            return "it was saved with other settings"
        return ""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file, or the folder of a sharded one, and its state.

    Attributes:
        path: the file or folder.
        bytes: its size.
        record: its metadata; None where they can't be read.
        state: ok; torn: truncated, or not a checkpoint; altered: its content does not match its digest; unsigned: a
            complete archive that was not written by mlscale, so that changes can't be detected.
        corruption: of a sharded one: which parts are missing, cut short or altered; '' where none is, and of a file.
    """

    path: Path
    bytes: int
    record: CheckpointRecord | None
    state: CheckpointState
    corruption: str = ""

    @property
    def is_corrupt(self) -> bool:
        """True if it must not be used."""
        return self.state in ("torn", "altered")


def describe_checkpoint_state(checkpoint: CheckpointFile) -> str:
    """Return a sentence for the state of a checkpoint."""
    if checkpoint.corruption:
        return f"it is not what was written: {checkpoint.corruption}"
    return {
        "ok": "its digest holds",
        "torn": "it is cut short, or no checkpoint",
        "altered": "its content is not what was written: the digest differs",
        "unsigned": "it holds no digest, so it was not written by mlscale",
    }[checkpoint.state]
