"""The folder in which data sets and indexes are kept between runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlscale.errors import Exit, MLScaleError


def cache_dir() -> Path:
    """`$MLSCALE_CACHE`, else `~/.cache/mlscale`. It need not exist."""
    return Path(os.environ.get("MLSCALE_CACHE") or Path.home() / ".cache" / "mlscale")


@contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """A new folder to write in, which becomes `target` when the block ends well and vanishes when it does not.

    Several processes may do so at once: the first to finish wins, and the others' work, which is the same, is dropped.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise MLScaleError(
            f"the folder {str(target.parent)!r} cannot be written to",
            where="data.root" if "MLSCALE_CACHE" not in os.environ else "MLSCALE_CACHE",
            why=error.strerror or str(error),
            fix="export MLSCALE_CACHE=<a folder with room>",
            exit=Exit.ENVIRONMENT,
        ) from error
    try:
        yield aside
        aside.chmod(0o755)
        try:
            aside.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_file_aside(target: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a small file so that a reader sees all of it or none; `mode` says who may read it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(name, mode)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
