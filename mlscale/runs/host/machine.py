"""Properties of this machine, from the operating system only: no library is imported, no program is started.

Measure the speed and free space of a folder's disk.

Check whether other processes use this machine's cores.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")
_NAME_AND_VERSION = re.compile(r"^(Name|Version):(.*)$", re.MULTILINE)
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 for no limit


def describe_hardware() -> dict[str, Any]:
    """Return the hardware of a run, for its manifest: host, system, CPU, usable cores, memory in bytes."""
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": read_cpu_model(),
        "cores": count_usable_cores(),
        "memory_bytes": get_memory_bytes(),
    }


def list_packages() -> dict[str, str]:
    """Return the version of every installed distribution, by name."""
    versions = {}
    for distribution in metadata.distributions():
        # `distribution.metadata` parses the description, too, which takes ten times as long.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        fields = {key: value.strip() for key, value in _NAME_AND_VERSION.findall(text.partition("\n\n")[0])}
        if len(fields) == 2:
            versions[fields["Name"].lower().replace("_", "-")] = fields["Version"]
    return dict(sorted(versions.items()))


def count_usable_cores() -> int:
    """Return the number of CPU cores that this process may use: by its affinity and a container's quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _read_cpu_quota()
    return max(1, min(cores, int(quota))) if quota else max(1, cores)


def get_memory_bytes() -> int:
    """Return the memory that this process may use, in bytes: the machine's or a container's limit; 0 where unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    limits = [
        _read_number(folder / name)
        for folder, name in _find_cgroup_files("memory", "memory.max", "memory.limit_in_bytes")
    ]
    return min([total, *(limit for limit in limits if limit and limit < _UNLIMITED)])


def get_free_memory() -> int:
    """Return the memory that is available now, in bytes; 0 where unknown."""
    for line in _read_lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
            # MemAvailable is the machine's: inside a container its limit may leave less.
            return min([available, *_read_cgroup_headroom()])
    return 0


def get_resident_bytes() -> int:
    """Return the memory that this process occupies now, bytes; 0 where unknown."""
    # The second field of statm is the resident size, in pages (proc(5)).
    fields = _read_lines(Path("/proc/self/statm"))
    return int(fields[0].split()[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def read_cpu_model() -> str:
    """Return the name of the CPU."""
    for line in _read_lines(Path("/proc/cpuinfo")):
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_cpu_flags() -> frozenset[str]:
    """Return the CPU's instruction sets as Linux names them (`avx512_bf16`, `amx_tile`); empty on other systems."""
    for line in _read_lines(Path("/proc/cpuinfo")):
        # x86 calls them flags, ARM Features.
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _read_cpu_quota() -> float | None:
    # cgroup v2 has quota and period in one file, v1 in two.
    for folder, name in _find_cgroup_files("cpu", "cpu.max", "cpu.cfs_quota_us"):
        text = " ".join(_read_lines(folder / name)).split()
        if name == "cpu.max" and len(text) == 2 and text[0].isdigit():
            return int(text[0]) / int(text[1])
        if name == "cpu.cfs_quota_us" and text and text[0].isdigit():
            period = _read_number(folder / "cpu.cfs_period_us")
            return int(text[0]) / period if period else None
    return None


def _read_cgroup_headroom() -> list[int]:
    headroom = []
    for limit_name, used_name in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        for folder, name in _find_cgroup_files("memory", limit_name):
            limit, used = _read_number(folder / name), _read_number(folder / used_name)
            if limit and used and limit < _UNLIMITED:
                headroom.append(max(0, limit - used))
    return headroom


def _find_cgroup_files(controller: str, *names: str) -> list[tuple[Path, str]]:
    """Return the files with limits of this process's control group that exist, nearest group first, the root last."""
    folders = []
    for line in _read_lines(Path("/proc/self/cgroup")):
        # `id:controllers:path` (cgroups(7)); cgroup v2 has one line without controllers.
        _, controllers, path = line.split(":", 2)
        base = _CGROUP if not controllers else _CGROUP / controller
        if not controllers or controller in controllers.split(","):
            folders.append(base / path.lstrip("/"))
    # Inside a container the path is often the host's and does not exist; the root then holds the container's limits.
    folders += [_CGROUP, _CGROUP / controller]
    return [(folder, name) for folder in folders for name in names if (folder / name).is_file()]


def _read_number(path: Path) -> int | None:
    text = " ".join(_read_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


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


@dataclass(frozen=True)
class MachineLoad:
    """The load of a machine.

    Attributes:
        processes: number that run or wait to run, mean of the last minute, over the whole machine.
        cores: of the whole machine.
    """

    processes: float
    cores: int

    @property
    def busy(self) -> bool:
        """True if more processes want to run than there are cores."""
        return self.processes > self.cores

    def compute_uncertainty(self, threads: int) -> float:
        """Return the share by which `threads` of a run take longer if three times as many other processes want to run;
        0 on a machine with free cores.
        """
        running = self.processes + threads
        return 2 * self.processes / running if running > self.cores else 0.0

    def describe_oversubscription(self) -> str:
        """Return a message; empty on a machine with free cores."""
        return f"the machine is oversubscribed (load {self.processes:.1f} on {self.cores} cores)" if self.busy else ""


def measure_load() -> MachineLoad:
    """Return the load as the operating system reports it; called before this program's own work starts."""
    # Of the whole machine, not those of this process: the load average counts the whole machine's processes.
    cores = os.cpu_count() or 1
    try:
        return MachineLoad(os.getloadavg()[0], cores)
    except OSError:  # the system has no load average: then nothing is reported
        return MachineLoad(0.0, cores)
