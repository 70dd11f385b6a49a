"""Sharded checkpoints: a folder in place of a file, with the part of every rank, and committed as a whole.

`last.ckpt/` holds the files of `torch.distributed.checkpoint` (`__<rank>_0.distcp` and `.metadata`); `parts.json`,
their sizes and SHA-256; and, written last, `state.ckpt`: all that is not sharded, as a checkpoint of one file. Its
record is that of the folder, and its digest covers that of `parts.json`, so it covers the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlscale.atomic_files import ASIDE, PRIVATE_FOLDER, write_bytes
from mlscale.file_locks import lock_file
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX

STATE = f"state{SUFFIX}"
PARTS = "parts.json"
REPLACED = f".replaced{SUFFIX}"  # searches find it, as any other checkpoint
_EXCHANGE, _AT_FDCWD = 2, -100  # of Linux's renameat2


def is_checkpoint(path: Path) -> bool:
    """Return whether `path` is a checkpoint by its kind: a file, or a folder with a state."""
    return path.is_file() or is_sharded(path)


def is_sharded(path: Path) -> bool:
    """Return whether `path` is the folder of a sharded checkpoint, complete or not."""
    return path.is_dir() and (path / STATE).is_file()


def has_sharded_parts(path: Path) -> bool:
    """Return whether `path` is a sharded checkpoint or what is left of one."""
    return path.is_dir() and any((path / name).exists() for name in (STATE, PARTS))


def measure_checkpoint(path: Path) -> int:
    """Return the bytes of a checkpoint, a file or a folder."""
    return measure_folder(path) if path.is_dir() else path.stat().st_size


def measure_folder(folder: Path) -> int:
    """Return the bytes in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def write_parts(folder: Path, digests: Mapping[str, str]) -> str:
    """Write the list of a folder's parts, and return its SHA-256.

    Args:
        folder: the folder; the parts are in it.
        digests: SHA-256 in hex, by name.
    """
    parts = {name: {"bytes": (folder / name).stat().st_size, "sha256": digests[name]} for name in sorted(digests)}
    content = json.dumps(parts, indent=1).encode()
    write_bytes(folder / PARTS, content)
    return hashlib.sha256(content).hexdigest()


def read_parts(folder: Path, digest: str | None) -> dict[str, tuple[int, str]] | None:
    """Return size and SHA-256 of each part by its name; None where the list is not the one with this digest."""
    try:
        content = (folder / PARTS).read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != digest:
        return None
    return {name: (part["bytes"], part["sha256"]) for name, part in json.loads(content).items()}


def find_corrupt_parts(folder: Path, digest: str | None) -> list[str]:
    """Return a phrase for each part of a folder that is not what was written, by its size and digest."""
    parts = read_parts(folder, digest)
    if parts is None:
        return [f"{PARTS} is {'altered' if (folder / PARTS).is_file() else 'missing'}"]
    return [f"{name} {how}" for name, part in parts.items() if (how := _describe_corruption(folder / name, *part))]


def _describe_corruption(path: Path, size: int, sha256: str) -> str:
    if not path.is_file():
        return "is missing"
    if (actual := path.stat().st_size) < size:
        return f"is cut short, {actual:,} of {size:,} bytes"
    # A longer one is altered, whatever it begins with.
    with path.open("rb") as file:
        whole = actual == size and hashlib.file_digest(file, "sha256").hexdigest() == sha256
    return "" if whole else "is altered"


@contextlib.contextmanager
def open_aside_folder(target: Path) -> Iterator[Path]:
    """Provide a locked folder to fill next to `target`; it is removed unless it was renamed meanwhile."""
    aside = target.with_name(f"{ASIDE}{target.name}-{secrets.token_hex(4)}")
    aside.mkdir(mode=PRIVATE_FOLDER)
    handle = os.open(aside, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks, where nothing incomplete is removed
            lock_file(handle)
        yield aside
    finally:
        if aside.exists():
            shutil.rmtree(aside, ignore_errors=True)
        os.close(handle)


def replace_path(aside: Path, target: Path) -> None:
    """Rename a complete file or folder to `target`, in place of what is there; at every moment there is one of the two.

    Raises:
        OSError: it can't be renamed.
    """
    if not target.exists():
        aside.rename(target)
    elif exchange_paths(aside, target):
        remove_checkpoint_path(aside)  # now the old one
    else:
        # Not in one step here. Between the two the old one has another name, by which a search finds it.
        replaced = target.with_name(f"{target.stem}{REPLACED}")
        remove_checkpoint_path(replaced)
        target.rename(replaced)
        aside.rename(target)
        remove_checkpoint_path(replaced)


def exchange_paths(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; returns False where the system or the file system can't."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def remove_checkpoint_path(path: Path) -> None:
    """Remove a checkpoint, a file or a folder, in one step as others see it; nothing where it does not exist."""
    if path.is_dir() and not path.is_symlink():
        aside = path.with_name(f"{ASIDE}{path.name}-{secrets.token_hex(4)}")
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)


def remove_incomplete_folders(folder: Path) -> None:
    """Remove incomplete sharded checkpoints of killed processes; one that is still being written is locked."""
    for path in folder.glob(f"{ASIDE}*{SUFFIX}-*"):
        if not path.is_dir():
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                lock_file(handle)
                shutil.rmtree(path)
        finally:
            os.close(handle)
    for path in folder.glob(f"*{REPLACED}"):
        # The process was killed before it removed the old one, and after the new one got its name.
        if is_checkpoint(path.with_name(path.name.removesuffix(REPLACED) + SUFFIX)):
            remove_checkpoint_path(path)
