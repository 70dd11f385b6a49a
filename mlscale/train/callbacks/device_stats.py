"""Device statistics: CPU, memory and GPU use, sampled in a thread during training."""

from __future__ import annotations

import threading
from collections import defaultdict

from pytorch_lightning import Callback, LightningModule, Trainer

from mlscale.errors import MLScaleError
from mlscale.train.callbacks.train_metrics import find_train_metrics
from mlscale.train.machine_sensors import GpuSensor, HostSensor, MachineSensor

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
