"""Properties of this machine, from the operating system only: no library is imported, no program is started."""

from __future__ import annotations

import os
import platform
import re
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")
_NAME_AND_VERSION = re.compile(r"^(Name|Version):(.*)$", re.MULTILINE)
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 for no limit


def describe() -> dict[str, Any]:
    """Return the hardware of a run, for its manifest: host, system, CPU, usable cores, memory in bytes."""
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
    }


def packages() -> dict[str, str]:
    """Return the version of every installed distribution, by name."""
    found = {}
    for distribution in metadata.distributions():
        # `distribution.metadata` parses the description, too, which takes ten times as long.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        fields = {key: value.strip() for key, value in _NAME_AND_VERSION.findall(text.partition("\n\n")[0])}
        if len(fields) == 2:
            found[fields["Name"].lower().replace("_", "-")] = fields["Version"]
    return dict(sorted(found.items()))


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use: by its affinity and a container's quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(cores, int(quota))) if quota else max(1, cores)


def memory_bytes() -> int:
    """Return the memory that this process may use, in bytes: the machine's or a container's limit; 0 where unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    limits = [_number(folder / name) for folder, name in _cgroup_files("memory", "memory.max", "memory.limit_in_bytes")]
    return min([total, *(limit for limit in limits if limit and limit < _UNLIMITED)])


def free_memory_bytes() -> int:
    """Return the memory that is available now, in bytes; 0 where unknown."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
            # MemAvailable is the machine's: inside a container its limit may leave less.
            return min([available, *_cgroup_room()])
    return 0


def resident_bytes() -> int:
    """Return the memory that this process occupies now, bytes; 0 where unknown."""
    # The second field of statm is the resident size, in pages (proc(5)).
    fields = _lines(Path("/proc/self/statm"))
    return int(fields[0].split()[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def cpu_model() -> str:
    """Return the name of the CPU."""
    for line in _lines(Path("/proc/cpuinfo")):
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Return the CPU's instruction sets as Linux names them (`avx512_bf16`, `amx_tile`); empty on other systems."""
    for line in _lines(Path("/proc/cpuinfo")):
        # x86 calls them flags, ARM Features.
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cpu_quota() -> float | None:
    # cgroup v2 has quota and period in one file, v1 in two.
    for folder, name in _cgroup_files("cpu", "cpu.max", "cpu.cfs_quota_us"):
        text = " ".join(_lines(folder / name)).split()
        if name == "cpu.max" and len(text) == 2 and text[0].isdigit():
            return int(text[0]) / int(text[1])
        if name == "cpu.cfs_quota_us" and text and text[0].isdigit():
            period = _number(folder / "cpu.cfs_period_us")
            return int(text[0]) / period if period else None
    return None


def _cgroup_room() -> list[int]:
    room = []
    for limit_name, used_name in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        for folder, name in _cgroup_files("memory", limit_name):
            limit, used = _number(folder / name), _number(folder / used_name)
            if limit and used and limit < _UNLIMITED:
                room.append(max(0, limit - used))
    return room


def _cgroup_files(controller: str, *names: str) -> list[tuple[Path, str]]:
    """Return the files with limits of this process's control group that exist, nearest group first, the root last."""
    folders = []
    for line in _lines(Path("/proc/self/cgroup")):
        # `id:controllers:path` (cgroups(7)); cgroup v2 has one line without controllers.
        _, controllers, path = line.split(":", 2)
        base = _CGROUP if not controllers else _CGROUP / controller
        if not controllers or controller in controllers.split(","):
            folders.append(base / path.lstrip("/"))
    # Inside a container the path is often the host's and does not exist; the root then holds the container's limits.
    folders += [_CGROUP, _CGROUP / controller]
    return [(folder, name) for folder in folders for name in names if (folder / name).is_file()]


def _number(path: Path) -> int | None:
    text = " ".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
