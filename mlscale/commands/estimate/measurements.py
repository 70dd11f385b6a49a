"""The measurements of `mlscale estimate`: memory from the task and one batch, time from short runs in a temporary
folder.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from mlscale.assembly import short_fits as short_fit
from mlscale.assembly.run import build_data, build_task
from mlscale.errors import MLScaleError
from mlscale.estimate import time_probe as probe
from mlscale.estimate.run_length import Plan, limited, plan
from mlscale.estimate.step import Loop
from mlscale.estimate.step_memory import Memory, cut, peak_memory
from mlscale.runs.machine import free_memory_bytes, resident_bytes
from mlscale.train.graceful_stop import seconds_of
from mlscale.train.input_size import unsuited_input
from mlscale.train.lightning.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

# A process takes 1.1 to 1.8 times what its tensors do (allocator, scratch memory of kernels), and Python and torch.
_RESIDENT, _BASE = 1.8, 700 * 2**20
_FIRST_PASSES, _FIRST_VALIDATION = 3, 2  # of the fit that warms up and shows how long the next may be


@dataclass(frozen=True)
class Time:
    """The result of a time probe.

    Attributes:
        seconds: of the whole run, as its result's `time_s`; NaN if its end is unknown.
        error: of `seconds`, as a share of it.
        steps: optimizer steps of the run.
        step_s: one optimizer step.
        samples_per_s: throughput of all processes in training; NaN where the batch size is unknown.
        resident_bytes: the most a process of the probe took; None where it took a smaller batch.
        how: a phrase, if the time was extrapolated.
    """

    seconds: float
    error: float
    steps: int
    step_s: float
    samples_per_s: float
    validation_s: float
    startup_s: float
    resident_bytes: int | None
    how: str

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name, with units."""
        found = {
            "time_error_percent": round(self.error * 100),
            "steps": self.steps,
            "step_s": self.step_s,
            "validation_s": self.validation_s,
            "startup_s": self.startup_s,
            "throughput_samples_per_s": self.samples_per_s,
        }
        return found | ({"resident_memory_bytes": self.resident_bytes} if self.resident_bytes else {})


def measure_memory(cfg: DictConfig, accelerator: str) -> Memory:
    """Return the peak memory of one process's training step, from one real batch of the data."""
    loop = Loop(
        precision=str(cfg.precision.value),
        passes=cfg.trainer.get("accumulate_grad_batches", 1) or 1,
        clip=cfg.trainer.get("gradient_clip_val"),
        # torch's optimizers use their foreach implementation, which takes temporary memory, by default on CUDA only.
        foreach=accelerator == "cuda",
        cpu_kernels=accelerator == "cpu",
    )
    quiet()
    torch.set_num_threads(cfg.derived.threads)  # kernels, and what they take, depend on it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*self\.log\(\).*trainer.*")  # there is none here
        try:
            return peak_memory(lambda: build_task(cfg), first_batch(cfg), loop, free_memory_bytes())
        except Exception as error:
            # torch's message about shapes names neither the data nor the model.
            if told := _unsuited(cfg, error):
                raise told from error
            raise


def _unsuited(cfg: DictConfig, error: Exception) -> MLScaleError | None:
    """Return the error to report if the model can't take the images of the data; None for another error."""
    ranks = cfg.derived.world_size * (cfg.trainer.get("accumulate_grad_batches", 1) or 1)
    batch = cfg.derived.per_device_batch
    return unsuited_input(error, build_task(cfg), build_data(cfg), per_device_batch=batch, ranks=ranks)


def first_batch(cfg: DictConfig) -> Any:
    """Return the first training batch of one process, as the loader gives it, on the CPU.

    Raises:
        MLScaleError: neither the data nor the task has a training loader, or it is empty.
    """
    one = cfg.copy()
    if cfg.get("data") and cfg.derived.per_device_batch:
        one.data.batch_size = cfg.derived.per_device_batch  # without a trainer the data knows of no other processes
    data = build_data(one)
    if data is not None:
        data.prepare_data()
        data.setup("fit")
    source: Any = data if data is not None else build_task(cfg)
    batch = next(iter(source.train_dataloader()), None)
    if batch is None:
        raise MLScaleError(
            "the training data has no batch",
            where="data",
            fix="data.batch_size=1; if there is still none, the training loader of your data yields nothing",
        )
    return batch


def measure_time(cfg: DictConfig, facts: Mapping[str, Any] | None, seconds: float, memory: Memory) -> Time:
    """Return the time of the whole run, from short ones with its own loop, data pipeline and callbacks.

    A batch that would not fit into what memory is free is extrapolated from the two largest of its halves that do.
    """
    batch = cfg.derived.per_device_batch
    # None means that the batch size is unknown: the loader's batches are taken as they are.
    fitting = [batch] if batch is None else probe.batches_to_probe(batch, lambda size: _fits(cfg, size, memory))
    if not fitting:
        raise MLScaleError(
            "not even a small batch fits into this machine's memory",
            where="data.batch_size",
            fix="estimate.probe_seconds=0, for memory alone",
        )
    probes = [_probe(_with_batch(cfg, size), facts, seconds / len(fitting)) for size in fitting]
    timing, startup, resident = probes[-1]
    how = ""
    if batch is not None and len(fitting) == 2:
        few, many = (int(size) for size in fitting if size is not None)
        timing = probe.at_batch((few, probes[0][0]), (many, timing), batch)
        how = f"extrapolated from {few} and {many} samples per process: {batch} do not fit into free memory"
    work = _plan(cfg, timing)
    total = probe.whole(timing, work, startup) if work else math.nan
    if (cap := seconds_of(cfg.trainer.get("max_time"))) is not None:
        # `trainer.max_time` ends the run.
        total = min(total, cap)
    passes = cfg.trainer.get("accumulate_grad_batches", 1) or 1
    step_s = passes * timing.pass_s
    throughput = cfg.data.batch_size / step_s if batch and step_s else math.nan
    return Time(
        seconds=total,
        error=max(probe.ERROR, timing.spread),  # a machine that is not steady now won't be then
        steps=work.passes // passes if work else 0,
        step_s=step_s,
        samples_per_s=throughput,
        validation_s=timing.validation_s * (work.validation_batches if work else 0),
        startup_s=startup,
        resident_bytes=None if how else resident,
        how=how,
    )


def occupied_bytes(peak: int) -> int:
    """Return the most that a process with so many bytes of tensors at its peak occupies, bytes.

    Python, torch and the data occupy what they do in this process, which holds the same.
    """
    return round(_RESIDENT * peak + max(resident_bytes(), _BASE))


def _fits(cfg: DictConfig, samples: int, memory: Memory) -> bool:
    """Return whether every process's tensors at that batch, as a process holds them, fit into the free memory."""
    if cfg.derived.accelerator != "cpu":
        return True
    # Another batch is traced again: activations grow with it, weights do not.
    if samples != cfg.derived.per_device_batch:
        memory = _smaller(cfg, samples)
    free = free_memory_bytes()
    # `free` is 0 where the system does not report it: then the batch is tried.
    return not free or cfg.derived.world_size * (_RESIDENT * memory.peak + _BASE) < free


def _smaller(cfg: DictConfig, samples: int) -> Memory:
    loop = Loop(str(cfg.precision.value), cfg.trainer.get("accumulate_grad_batches", 1) or 1)
    return peak_memory(lambda: build_task(cfg), cut(first_batch(_with_batch(cfg, samples)), samples), loop)


def _with_batch(cfg: DictConfig, samples: int | None) -> DictConfig:
    """Return the same run with another batch per process."""
    if samples is None or samples == cfg.derived.per_device_batch:
        return cfg
    other = cfg.copy()
    # The batch of the config is global: over all processes and accumulated passes.
    other.data.batch_size = samples * cfg.derived.world_size * (cfg.trainer.get("accumulate_grad_batches", 1) or 1)
    other.derived.per_device_batch = samples
    return other


def _plan(cfg: DictConfig, timing: probe.Timing) -> Plan | None:
    """Return the work of the run, from the config, or from the loaders where the data reports no facts."""
    derived, accumulate = cfg.derived, cfg.trainer.get("accumulate_grad_batches", 1) or 1
    epochs = cfg.trainer.get("max_epochs")
    if derived.steps_per_epoch is not None:
        total = derived.total_steps
        return plan(
            cfg.trainer,
            derived.steps_per_epoch * accumulate,
            total * accumulate if total is not None else None,
            _validation_batches(cfg),
        )
    if timing.all_passes is None:
        return None
    passes = max(1, limited(cfg.trainer.get("limit_train_batches"), timing.all_passes))
    # -1 is Lightning's "no limit".
    steps = cfg.trainer.get("max_steps", -1) or -1
    ends = [passes * epochs] * bool(epochs and epochs > 0) + [steps * accumulate] * (steps > 0)
    return plan(cfg.trainer, passes, min(ends, default=None), timing.all_validation_batches)


def _validation_batches(cfg: DictConfig) -> int | None:
    derived = cfg.derived
    if derived.val_samples is None or not derived.per_device_batch:
        return None
    return int(-(-derived.val_samples // (derived.per_device_batch * derived.world_size)))


def _probe(cfg: DictConfig, facts: Mapping[str, Any] | None, seconds: float) -> tuple[probe.Timing, float, int]:
    """Run a short fit to warm up, then one of about `seconds`; return the timing, seconds that a run takes once, and
    bytes.
    """
    accumulate = cfg.trainer.get("accumulate_grad_batches", 1) or 1
    passes = cfg.derived.steps_per_epoch * accumulate if cfg.derived.steps_per_epoch else None
    validation = _validation_batches(cfg)
    if validation is not None:
        validation = limited(cfg.trainer.get("limit_val_batches"), validation)
    few = (min(_FIRST_PASSES * accumulate, passes or _FIRST_PASSES), min(_FIRST_VALIDATION, validation or 2))
    if validation == 0:
        few = (few[0], 0)
    # Its first steps are slow (imports, allocations, caches): it only shows how many steps fit into the time of the
    # next.
    first, fit = _fit(cfg, facts, few, epochs=1, announce_metric=True)
    passes = passes if passes is not None else first.all_passes
    validation = validation if validation is not None else first.all_validation_batches
    steady, last = _fit(cfg, facts, probe.limits(first, seconds, passes, validation, accumulate), epochs=probe.EPOCHS)
    # The larger of the two: the longer fit need not have the higher peak.
    resident = int(max(fit["peak_memory_bytes"], last["peak_memory_bytes"]))
    return steady, probe.startup(fit["seconds"], first, steady), resident


def _fit(
    cfg: DictConfig,
    facts: Mapping[str, Any] | None,
    batches: tuple[int, int],
    epochs: int,
    *,
    announce_metric: bool = False,
) -> tuple[probe.Timing, dict[str, Any]]:
    """Run a short fit with a clock."""
    with short_fit.scratch("estimate") as folder:
        clock = folder / "clock.json"
        callback = {"_target_": "mlscale.estimate.time_probe.Clock", "path": str(clock)}
        short = short_fit.shortened(cfg, batches, epochs, {"estimate_clock": callback})
        outcome = short_fit.fit(short, facts, folder, announce_metric=announce_metric)
        return probe.read(clock), outcome
