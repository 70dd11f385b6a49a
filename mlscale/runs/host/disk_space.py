"""Measure the speed and free space of a folder's disk."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 4 << 20
_MOST = 256 << 20


@dataclass(frozen=True)
class Disk:
    """The measured properties of a folder's disk.

    Attributes:
        path: the folder, or its nearest parent that exists.
        writable: True if files can be created in it.
        free_bytes: free space for this user.
        write_bytes_per_s: to the disk, flush included; None where not writable.
        read_bytes_per_s: back from it, past the page cache where the system allows that; None where not writable.
    """

    path: str
    writable: bool
    free_bytes: int
    write_bytes_per_s: float | None = None
    read_bytes_per_s: float | None = None


def measure_disk(folder: str | Path, seconds: float = 0.5) -> Disk:
    """Measure the disk of `folder` with a temporary file: at most 256 MiB, about `seconds` for writing it."""
    existing = Path(folder).absolute()
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    probe = existing / f".mlscale-speed-{secrets.token_hex(4)}"
    try:
        # A quarter of the free space at most: other processes write to a nearly full disk, too.
        written, wrote = _measure_write(probe, seconds, min(_MOST, free // 4))
        read = _measure_read(probe)
    except OSError:
        return Disk(str(existing), False, free)
    finally:
        probe.unlink(missing_ok=True)
    return Disk(str(existing), True, free, written / wrote, written / read)


def _measure_write(path: Path, seconds: float, most: int) -> tuple[int, float]:
    """Return the bytes written, and the seconds until they were on the disk. Random bytes: some disks compress."""
    block, written, started = os.urandom(_BLOCK), 0, time.perf_counter()
    with path.open("xb", buffering=0) as file:
        while written == 0 or (written < most and time.perf_counter() - started < seconds):
            written += file.write(block)
            # After each block, so that the time limit counts what reached the disk, not the page cache.
            os.fsync(file.fileno())
    return written, time.perf_counter() - started


def _measure_read(path: Path) -> float:
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            # Drops the file from the page cache; otherwise the speed of memory would be measured.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        while file.read(_BLOCK):
            pass
    return max(time.perf_counter() - started, 1e-6)
