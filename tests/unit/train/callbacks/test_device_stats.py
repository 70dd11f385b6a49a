"""Device statistics: what is sampled is what the process does, beside the training."""

import os
import threading
import time
from typing import Any

import pytest
import torch

from mlscale.errors import MLScaleError
from mlscale.train.callbacks import DeviceStats, TrainMetrics
from mlscale.train.callbacks import device_stats as samplers
from mlscale.train.callbacks.device_stats import GpuSensor, HostSensor
from tests.unit.fitting import At, batches, classifier, fit, trainer
from tests.unit.train.callbacks.test_train_metrics import Recorder


def test_a_busy_process_is_seen() -> None:
    host, block = HostSensor(), bytearray(200 * 2**20)
    first = host.sample_metrics()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        sum(range(1000))
    busy = host.sample_metrics()
    time.sleep(0.3)
    idle = host.sample_metrics()
    assert "device/cpu_percent" not in first
    # Other jobs may have most of the machine: by how much it was busy is not asked.
    assert idle["device/cpu_percent"] < busy["device/cpu_percent"] / 2
    assert 0.2 < busy["device/memory_gib"] < 64
    assert 0 <= busy["device/machine_cpu_percent"] <= 100
    assert 0 < busy["device/machine_memory_percent"] < 100
    assert len(block)


def test_entries_hold_means_and_the_thread_ends() -> None:
    recorder = Recorder()
    slow = At(lambda run, module, index: time.sleep(0.03))
    run = trainer(logger=recorder, callbacks=[slow, TrainMetrics(), DeviceStats(every_s=0.05)], log_every_n_steps=4)
    fit(run, classifier(), batches(16))
    assert recorder.of("device/memory_gib")
    assert all(0 <= percent < 100 * (os.cpu_count() or 1) for _, percent in recorder.of("device/cpu_percent"))
    assert "device/cpu_percent" in run.callback_metrics
    assert "device/memory_gib" not in run.callback_metrics
    assert not [thread for thread in threading.enumerate() if thread.name == "mlscale-device-stats"]


def test_a_run_shorter_than_the_pause_between_two_samples_has_one() -> None:
    recorder = Recorder()
    slow = At(lambda run, module, index: time.sleep(0.04))
    callbacks = [slow, TrainMetrics(), DeviceStats(every_s=60)]
    fit(trainer(logger=recorder, callbacks=callbacks, log_every_n_steps=4), classifier(), batches(16))
    assert recorder.of("device/memory_gib")


def test_the_thread_ends_with_a_run_that_fails() -> None:
    def fail(run: Any, module: Any, index: int) -> None:
        raise RuntimeError("as asked")

    with pytest.raises(RuntimeError, match="as asked"):
        fit(trainer(callbacks=[At(fail), TrainMetrics(), DeviceStats()]), classifier(), batches(2))
    assert not [thread for thread in threading.enumerate() if thread.name == "mlscale-device-stats"]


def test_a_card_that_reports_little(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No card is here: torch's own questions are answered as one without NVML's bindings, and one without a sensor."""

    def unbound(_: Any) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed or it can't be imported.")

    def no_sensor(_: Any) -> int:
        raise RuntimeError("NVML_ERROR_NOT_SUPPORTED")

    monkeypatch.setattr(samplers, "_printed", set())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (6 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "power_draw", lambda _: 250_000)
    monkeypatch.setattr(torch.cuda, "utilization", unbound)
    monkeypatch.setattr(torch.cuda, "temperature", no_sensor)
    gpu = GpuSensor(torch.device("cuda", 0))
    assert gpu.sample_metrics() == {"device/gpu_memory_gib": 2.0, "device/gpu_power_w": 250.0} == gpu.sample_metrics()
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2
    assert "pip install nvidia-ml-py" in printed[0]
    assert "device/gpu_temperature_c is not reported by this device: NVML_ERROR_NOT_SUPPORTED" in printed[1]


def test_an_interval_that_is_none() -> None:
    with pytest.raises(MLScaleError, match="every_s is 0"):
        DeviceStats(every_s=0)
