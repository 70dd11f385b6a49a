"""A disk of a fixed bandwidth: a file system in a file, on a loop device that the kernel limits for this process.

Linux, as root, with losetup, mkfs.ext4 and the first version of control groups (`blkio`). The limit is the kernel's: it
holds for what is read from the device, and not for what is in the page cache, which `forget_pages` empties of files.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup/blkio")


@contextmanager
def mount_throttled(megabytes: int) -> Iterator[tuple[Path, Path]]:
    """Yield the folder of a new file system, and a control group whose `limit_reads` limits what is read from it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image, mounted = folder / "disk.img", folder / "disk"
        with open(image, "wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(image))
        device = _run("losetup", "--find", "--show", str(image))
        stack.callback(_run, "losetup", "--detach", device)
        mounted.mkdir()
        _run("mount", device, str(mounted))
        stack.callback(_run, "umount", str(mounted))
        group = _GROUPS / f"mlscale-bench-{os.getpid()}"
        group.mkdir()
        stack.callback(group.rmdir)
        stack.enter_context(_join_group(group))
        yield mounted, group


def limit_reads(mounted: Path, group: Path, rate: float) -> None:
    """Let this process and its threads read so many bytes a second from the file system."""
    device = os.stat(mounted).st_dev
    (group / "blkio.throttle.read_bps_device").write_text(f"{os.major(device)}:{os.minor(device)} {int(rate)}\n")


def forget_pages(paths: Iterable[Path]) -> None:
    """Drop what the page cache has of files that are not being written."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


@contextmanager
def _join_group(group: Path) -> Iterator[None]:
    """Be in a control group, and back in the one of all processes afterwards: a group in use can't be removed."""
    before = next(
        line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":blkio:" in line
    )
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (_GROUPS / before.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
