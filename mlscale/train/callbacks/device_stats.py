"""Device statistics: CPU, memory and GPU use, sampled in a thread during training."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from mlscale.errors import MLScaleError
from mlscale.train.callbacks.train_metrics import find_train_metrics

_TABLE_METRICS = ("device/cpu_percent", "device/gpu_percent", "device/gpu_power_w")


class DeviceStats(Callback):
    """A callback that samples the machine in a thread, and writes means into the entries of `TrainMetrics`:

    - ``device/cpu_percent``: of this process and its loader workers; 100 is one core,
    - ``device/memory_gib``: resident, of the same,
    - ``device/machine_cpu_percent``, ``device/machine_memory_percent``: of the whole machine, other jobs included,
    - on CUDA ``device/gpu_percent``, ``device/gpu_memory_gib`` (used on the device, by any process),
      ``device/gpu_power_w``, ``device/gpu_temperature_c``, by NVML; without nvidia-ml-py the memory alone.

    With several processes they are the first one's. A step costs nothing. Values that a machine lacks are left out.

    Args:
        every_s: seconds between two samples.
    """

    def __init__(self, every_s: float = 2.0) -> None:
        if every_s < 0.05:
            raise MLScaleError(
                f"callbacks.device_stats.every_s is {every_s:g}",
                where="callbacks.device_stats.every_s",
                why="it is seconds between two samples, 0.05 or more",
                fix="callbacks.device_stats.every_s=2",
            )
        self.every_s = every_s
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._recent: dict[str, list[float]] = defaultdict(list)  # since the last entry
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # of the attempt: sum, count

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        find_train_metrics("device_stats", trainer)
        if not trainer.is_global_zero:
            return
        samplers: list[MachineSensor] = [HostSensor()]
        if trainer.strategy.root_device.type == "cuda":
            samplers.append(GpuSensor(trainer.strategy.root_device))
        # Cleared, since one callback may serve several fits.
        self._stopped.clear()
        self._thread = threading.Thread(
            target=self._sample_until_stopped, args=(samplers,), name="mlscale-device-stats", daemon=True
        )
        self._thread.start()

    def entry(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Return the means of the samples since the last entry; an empty dict where there are none yet."""
        with self._lock:
            means = {name: sum(values) / len(values) for name, values in self._recent.items()}
            self._recent.clear()
        return means

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with self._lock:
            means = {name: total / count for name, (total, count) in self._sums.items() if name in _TABLE_METRICS}
        for name, value in means.items():  # of the first rank, which alone samples
            pl_module.log(name, value, logger=False, rank_zero_only=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_thread()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop_thread()

    def _stop_thread(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _sample_until_stopped(self, samplers: list[MachineSensor]) -> None:
        for sampler in samplers:
            sampler.sample_metrics()  # rates are over the time since the sample before
        pause = min(self.every_s, 0.25)  # a run of seconds shall have some, too
        while not self._stopped.wait(pause):
            pause = min(2 * pause, self.every_s)
            values: dict[str, float] = {}
            for sampler in samplers:
                values |= sampler.sample_metrics()
            with self._lock:
                for name, value in values.items():
                    self._recent[name].append(value)
                    total = self._sums[name]
                    total[0], total[1] = total[0] + value, total[1] + 1


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
        if before is not None and now[0] > before[0] and used >= before[1]:  # one that ended is not counted any more
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
