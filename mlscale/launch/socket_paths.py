"""Keep the paths of multiprocessing's Unix sockets short, whatever TMPDIR is.

The fork server listens on a socket below the temporary folder, and so does each worker of a DataLoader that passes on
tensors. Such a path has at most 107 bytes (103 on macOS), which the TMPDIR of a cluster's job easily exceeds.
Python 3.14 falls back to /tmp, too; earlier versions raise 'AF_UNIX path too long'.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from mlscale.errors import Exit, MLScaleError

_MAX_PATH_BYTES = 107 if sys.platform == "linux" else 103  # bytes, without the NUL at the end
_PREFIX = "pymp-"  # as in multiprocessing's own folder names
_IN_FOLDER = len("/listener-12345678")
_IN_TMPDIR = len(f"/{_PREFIX}12345678") + _IN_FOLDER
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - the folder made in it is private


def shorten_socket_paths() -> None:
    """Make multiprocessing create its sockets in a folder with a short path, if that of TMPDIR is too long.

    Child processes inherit the folder; it is removed when this process ends.

    Raises:
        MLScaleError: no folder with a short path can be written to (exit code 5).
    """
    temporary = os.fsencode(tempfile.gettempdir())
    if len(temporary) + _IN_TMPDIR <= _MAX_PATH_BYTES:
        return
    from multiprocessing import process, util

    config = process.current_process()._config  # type: ignore[attr-defined]  # no public name
    made = config.get("tempdir")
    if made and len(os.fsencode(made)) + _IN_FOLDER <= _MAX_PATH_BYTES and Path(made).is_dir():
        return
    folder = _make_short_folder()
    config["tempdir"] = folder
    # The priority of multiprocessing's own folder: removed last, when no socket in it is used any more.
    util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)


def _make_short_folder() -> str:
    failed = []
    for parent in _SHORT_FOLDERS:
        try:
            return tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        except OSError as error:
            failed.append(f"{parent}: {error.strerror}")
    raise MLScaleError(
        "no folder for the sockets of processes",
        where=f"TMPDIR={tempfile.gettempdir()}",
        why=f"its path is too long for a Unix socket, and none of these can be written to: {', '.join(failed)}",
        fix="TMPDIR=<a folder whose path has fewer than 70 characters>",
        exit=Exit.ENVIRONMENT,
    )
