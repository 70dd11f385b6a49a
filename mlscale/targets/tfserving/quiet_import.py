"""Keep what TensorFlow prints of itself while it is imported away from stderr, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_INFORMATION = r"^(I[0-9]{4} |WARNING: All log messages before absl::InitializeLog)"
_STDERR = 2


@contextmanager
def drop_information() -> Iterator[None]:
    """Drop the lines of information that C++ code writes to stderr in this block; warnings and errors pass.

    They come before TensorFlow's log is set up, so that no setting of it silences them. A process of its own filters:
    where the import aborts this one, what it has printed still passes.
    """
    if (grep := shutil.which("grep")) is None:
        yield
        return
    saved = os.dup(_STDERR)
    try:
        with subprocess.Popen([grep, "--line-buffered", "-v", "-E", _INFORMATION], stdin=-1, stdout=saved) as process:
            assert process.stdin is not None
            os.dup2(process.stdin.fileno(), _STDERR)
            try:
                yield
            finally:
                # Its input ends with the last copy of the descriptor.
                os.dup2(saved, _STDERR)
    finally:
        os.close(saved)
