"""The folder in which data sets and indexes are kept between runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlscale.config.schema.local_paths import expect_local_path
from mlscale.errors import Exit, MLScaleError

_VARIABLE = "MLSCALE_CACHE"


def get_cache_dir() -> Path:
    """Return `$MLSCALE_CACHE`, else `~/.cache/mlscale`. It need not exist.

    Raises:
        MLScaleError: the variable has an address.
    """
    expect_local_path(_VARIABLE, os.environ.get(_VARIABLE), "environment")
    return Path(os.environ.get(_VARIABLE) or Path.home() / ".cache" / "mlscale")


@contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """Yield a new folder to write in; it is renamed to `target` if the block succeeds, and deleted if not.

    Several processes may do so at once: the first to finish wins, and the others' work, which is the same, is dropped.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the target's own folder, because a rename is atomic only within one file system.
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise MLScaleError(
            f"the folder {str(target.parent)!r} cannot be written to",
            where="data.root" if _VARIABLE not in os.environ else _VARIABLE,
            why=error.strerror or str(error),
            fix="export MLSCALE_CACHE=<a folder with free space>",
            exit=Exit.ENVIRONMENT,
        ) from error
    try:
        yield aside
        # mkdtemp creates it for its owner alone; a cache may be shared.
        aside.chmod(0o755)
        try:
            aside.rename(target)
        except OSError:
            # A rename onto a folder that is not empty fails: another process was first.
            if not target.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_file_aside(target: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a small file so that a reader sees all of it or none; `mode` is its permissions."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(name, mode)
        # Atomic: a reader opens the old file or the new one, never a part.
        os.replace(name, target)
    # On KeyboardInterrupt too, so that no temporary file stays behind.
    except BaseException:
        os.unlink(name)
        raise
