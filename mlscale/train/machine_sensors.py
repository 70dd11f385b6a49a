"""Sensors of a machine's CPU, memory and GPU use, in well under a millisecond: /proc on Linux, NVML on CUDA."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

_GIB = 2**30


class MachineSensor(Protocol):
    """A source of values that is sampled repeatedly."""

    def sample_metrics(self) -> dict[str, float]:
        """Return the present values by metric; rates are over the time since the last call."""
        ...


class HostSensor:
    """This process with its workers, and the machine: from /proc, or without it the process's own CPU time."""

    def __init__(self) -> None:
        self._linux = Path("/proc/self/stat").exists()
        self._last: tuple[float, float] | None = None
        self._machine: tuple[float, float] | None = None

    def sample_metrics(self) -> dict[str, float]:
        pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
        used = sum(map(_read_cpu_seconds, pids)) if self._linux else time.process_time()
        values: dict[str, float] = {}
        now, before = (time.monotonic(), used), self._last
        self._last = now
        if before is not None and now[0] > before[0] and used >= before[1]:  # a worker that ended is no longer counted
            values["device/cpu_percent"] = 100 * (used - before[1]) / (now[0] - before[0])
        return values | (self._sample_linux(pids) if self._linux else {})

    def _sample_linux(self, pids: list[int]) -> dict[str, float]:
        values = {"device/memory_gib": sum(map(_read_resident_bytes, pids)) / _GIB}
        # Eight columns: those after them, of guests, are part of user time already.
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        ticks = [float(word) for word in words]
        busy = sum(ticks) - ticks[3] - ticks[4]  # all but idle and waiting for a disk
        now, before = (sum(ticks), busy), self._machine
        self._machine = now
        if before is not None and now[0] > before[0]:
            values["device/machine_cpu_percent"] = 100 * (now[1] - before[1]) / (now[0] - before[0])
        memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, available = (float(memory[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        return values | {"device/machine_memory_percent": 100 * (1 - available / total)}


class GpuSensor:
    """One CUDA device, by NVML through torch, which knows which card CUDA_VISIBLE_DEVICES makes it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._readers: dict[str, Callable[[], float]] = {
            "device/gpu_percent": lambda: float(torch.cuda.utilization(device)),
            "device/gpu_power_w": lambda: torch.cuda.power_draw(device) / 1000,  # milliwatts
            "device/gpu_temperature_c": lambda: float(torch.cuda.temperature(device)),
        }

    def sample_metrics(self) -> dict[str, float]:
        free, total = torch.cuda.mem_get_info(self._device)
        values = {"device/gpu_memory_gib": (total - free) / _GIB}
        for name, read_value in list(self._readers.items()):
            try:
                values[name] = read_value()
            except Exception as error:  # no bindings, a card without the value, a driver without NVML
                del self._readers[name]
                _print_once(name, error)
        return values


_printed: set[str] = set()


def _print_once(name: str, error: Exception) -> None:
    if isinstance(error, ModuleNotFoundError):
        line = "GPU use, power and temperature need NVML's bindings: pip install nvidia-ml-py"
    else:
        line = f"{name} is not reported by this device: {(str(error) or type(error).__name__).splitlines()[0]}"
    if line not in _printed:
        _printed.add(line)
        tqdm.write(f"device    {line}", file=sys.stderr)


def _read_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads, in seconds; 0 for one that has ended."""
    fields = _read_proc_stat(pid)
    # utime and stime, fields 14 and 15 of proc_pid_stat(5): the list begins with the third.
    return (float(fields[11]) + float(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _read_resident_bytes(pid: int) -> float:
    fields = _read_proc_stat(pid)
    # rss, field 24, in pages.
    return float(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0.0


def _read_proc_stat(pid: int) -> Any:
    """Return the fields of /proc/<pid>/stat from the third on, since the second, a name, may hold anything; None for a
    process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
