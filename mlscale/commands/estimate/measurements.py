"""The measurements of `mlscale estimate`: memory from the task and one batch, time from short runs in a temporary
folder.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, open_dict

from mlscale.assembly import short_fits as short_fit
from mlscale.assembly.hook_layers import configure_own_model
from mlscale.assembly.run_parts import build_task, set_up_task
from mlscale.config.checks.strategy_support import get_strategy_name
from mlscale.errors import MLScaleError
from mlscale.estimate import time_probe as probe
from mlscale.estimate.recorded_steps import measure_step_peak
from mlscale.estimate.step import StepSettings
from mlscale.estimate.step_memory import (
    MEASURED_ERROR,
    PROCESSES_ERROR,
    UNCHECKED_ERROR,
    StepMemory,
    cut_batch,
    estimate_peak_memory,
)
from mlscale.estimate.time_probe import (
    RunLength,
    compute_run_length,
    count_validation_batches,
    limit_batches,
)
from mlscale.runs.host.machine import get_free_memory, get_resident_bytes
from mlscale.train.graceful_stop import parse_max_time
from mlscale.train.input_size import explain_unsuited_input
from mlscale.train.lightning.quiet import suppress_library_messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytorch_lightning import LightningModule

    from mlscale.assembly.run_data import RunData
    from mlscale.estimate.step import Processes
    from mlscale.runs.host.machine import MachineLoad

# A process takes 1.1 to 1.8 times what its tensors do (allocator, scratch memory of kernels), and Python and torch.
_RESIDENT_FACTOR, _BASE_BYTES = 1.8, 700 * 2**20
# At most, of real steps that are compared with the trace of a larger batch, or for another device.
_CHECKED_SAMPLES = 8
_FIRST_PASSES, _FIRST_VALIDATION = 3, 2  # of the fit that warms up and shows how long the next may be


@dataclass(frozen=True)
class TimeEstimate:
    """The result of a time probe.

    Attributes:
        seconds: of the whole run, as its result's `time_s`; NaN if its end is unknown.
        error: of `seconds`, as a share of it.
        steps: optimizer steps of the run.
        step_s: one optimizer step.
        samples_per_s: throughput of all processes in training; NaN where the batch size is unknown.
        resident_bytes: the most a process of the probe took.
        busy: a phrase about the load of the machine, if other processes take its cores.
    """

    seconds: float
    error: float
    steps: int
    step_s: float
    samples_per_s: float
    validation_s: float
    startup_s: float
    resident_bytes: int
    busy: str = ""

    def collect_time_metrics(self) -> dict[str, float]:
        """Return the metrics by name, with units."""
        return {
            "time_error_percent": round(self.error * 100),
            "steps": self.steps,
            "step_s": self.step_s,
            "validation_s": self.validation_s,
            "startup_s": self.startup_s,
            "throughput_samples_per_s": self.samples_per_s,
            "resident_memory_bytes": self.resident_bytes,
        }


def measure_memory(cfg: DictConfig, accelerator: str, facts: Mapping[str, Any] | None, run_data: RunData) -> StepMemory:
    """Return the peak memory of one process's training step, from one real batch of the data.

    Args:
        facts: of the data; None if it reports none.
    """
    loop = StepSettings(
        precision=str(cfg.precision.value),
        passes=cfg.trainer.get("accumulate_grad_batches", 1) or 1,
        clip=cfg.trainer.get("gradient_clip_val"),
        # torch's optimizers use their foreach implementation, which takes temporary memory, by default on CUDA only.
        foreach=accelerator == "cuda",
        cpu_kernels=accelerator == "cpu",
    )
    suppress_library_messages()
    torch.set_num_threads(cfg.derived.threads)  # kernels, and what they take, depend on it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*self\.log\(\).*trainer.*")  # there is none here
        try:
            batch = _load_first_batch(cfg, run_data)
            memory = _estimate_memory(cfg, batch, loop, run_data)
            return _check_memory(cfg, batch, loop, memory, facts, run_data)
        except Exception as error:
            # torch's message about shapes names neither the data nor the model.
            if problem := explain_unsuited_input(error, build_task(cfg), run_data.build_module(cfg)):
                raise problem from error
            raise


def _estimate_memory(
    cfg: DictConfig,
    batch: object,
    loop: StepSettings,
    run_data: RunData,
    *,
    is_alone: bool = False,
) -> StepMemory:
    """Return the memory of a step of the task as a run trains it, with its sharding unless `is_alone`."""

    def build_trained_task() -> LightningModule:
        task, _ = set_up_task(cfg, run_data.build_module(cfg))
        configure_own_model(task)
        return task

    processes = None if is_alone else _read_processes(cfg, has_device=not loop.cpu_kernels)
    return estimate_peak_memory(build_trained_task, batch, loop, processes)


def _check_memory(
    cfg: DictConfig,
    batch: object,
    loop: StepSettings,
    memory: StepMemory,
    facts: Mapping[str, Any] | None,
    run_data: RunData,
) -> StepMemory:
    """Return the memory, corrected by two steps of the run itself in one process on this machine's CPU; with a larger
    error where these can't take the whole batch, or where the run is on another device.
    """
    samples, device = cfg.derived.per_device_batch, cfg.derived.accelerator
    is_whole = loop.cpu_kernels and device == "cpu" and _is_fitting(memory.peak)
    if samples is not None and not is_whole:
        samples = min(samples, _CHECKED_SAMPLES)
    alone = memory
    if not is_whole or cfg.derived.world_size > 1:
        part = batch if samples is None else cut_batch(batch, samples)
        alone = _estimate_memory(cfg, part, replace(loop, foreach=False, cpu_kernels=True), run_data, is_alone=True)
    if device != "cpu" or not _is_fitting(alone.peak):
        return memory.add_unseen_bytes(0, UNCHECKED_ERROR, f"{memory.how}, not compared with real steps")
    # FSDP's saves are counted apart, and a device has no copy of what it saves.
    measured = _measure_own_peak(cfg, samples, facts, saves=is_whole and not memory.start)
    unseen = measured - alone.peak
    if is_whole:
        # Processes share weights, not activations: each has what one has, and the trace has not seen.
        error = PROCESSES_ERROR if cfg.derived.world_size > 1 else MEASURED_ERROR
        return memory.add_unseen_bytes(unseen, error, f"two of the run's own steps; parts: {memory.how}")
    error, how = UNCHECKED_ERROR, f"{memory.how}, compared with real steps on {samples or 'a batch of'} samples"
    if abs(unseen) > MEASURED_ERROR * measured:
        # What it has not seen may grow with the batch as fast as what it has.
        error = max(error, abs(unseen) / max(1, alone.activations + alone.scratch))
        how += f", which took {measured / alone.peak:.2f}× the memory of their trace"
    return memory.add_unseen_bytes(0, error, how)


def _measure_own_peak(cfg: DictConfig, samples: int | None, facts: Mapping[str, Any] | None, saves: bool) -> int:
    """Return the peak of two steps of the run itself, in this process alone, bytes.

    Args:
        samples: of a batch; None where it is the loader's.
        facts: of the data.
        saves: whether a run that saves before its last step does so between the two, as a copy of the state stays.
    """
    passes = min(2, cfg.trainer.get("accumulate_grad_batches", 1) or 1)  # more need no more memory
    settings = {key for node in (cfg.get("callbacks") or {}).values() for key, value in (node or {}).items() if value}
    # Without a known end, as by a limit of time, an epoch ends and is saved.
    steps, of_epoch = cfg.derived.total_steps, cfg.derived.steps_per_epoch
    is_one_epoch = cfg.trainer.get("max_epochs") == 1 or bool(steps and of_epoch and steps <= of_epoch)
    epochs = 2 if saves and (not is_one_epoch or settings & {"every_n_steps", "every_n_minutes"}) else 1
    with short_fit.provide_scratch_folder("estimate") as folder:
        joined = {"estimate_record": {"_target_": "mlscale.estimate.recorded_steps.RecordedSteps"}}
        short = short_fit.shorten_config(cfg, (2 * passes // epochs, 0), epochs, joined, steps_alone=True, saves=saves)
        with open_dict(short):
            short.trainer.update(
                devices=1, num_nodes=1, accumulate_grad_batches=passes, num_sanity_val_steps=0, profiler=None
            )
            if cfg.derived.world_size > 1:
                short.strategy = {"_target_": "mlscale.train.strategies.single"}
            if samples is not None:
                short.data.batch_size = passes * samples
        return measure_step_peak(lambda: short_fit.run_short_fit(short, facts, folder, command="estimate"))


def _read_processes(cfg: DictConfig, has_device: bool) -> Processes | None:
    """Return the processes of a run, by its strategy; None for one process or a third-party strategy.

    Args:
        has_device: memory of the host is another than that of the steps.
    """
    strategy, ranks = cfg.get("strategy") or {}, cfg.derived.world_size
    name = get_strategy_name(cfg)
    if ranks == 1 or not name:
        return None
    if name != "fsdp":
        from mlscale.estimate.replicated_step import Replication

        in_bf16 = strategy.get("gradient_reduction") == "bf16"
        return Replication(ranks, strategy.get("gradient_as_bucket_view", True), in_bf16)
    # Imported late: torch's distributed parts take a second, and most runs don't need them.
    from mlscale.estimate.sharded_step import Sharding
    from mlscale.train.strategies.sharding import ShardSettings

    settings = ShardSettings(
        tuple(strategy.get("wrap") or ()),
        strategy.get("wrap_min_params"),
        strategy.get("reduce_dtype") or "fp32",
        strategy.get("reshard_after_forward", True),
        has_device and strategy.get("cpu_offload", False),
    )
    return Sharding(ranks, settings, strategy.get("replicate") or 1)


def _load_first_batch(cfg: DictConfig, run_data: RunData) -> Any:
    """Return the first training batch of one process, as the loader gives it, on the CPU.

    Raises:
        MLScaleError: neither the data nor the task has a training loader, or it is empty.
    """
    batches = run_data.load_first_batches(cfg, 1)
    if not batches:
        raise MLScaleError(
            "the training data has no batch",
            where="data",
            fix="data.batch_size=1; if there is still none, the training loader of your data yields nothing",
        )
    return batches[0]


def measure_time(
    cfg: DictConfig,
    facts: Mapping[str, Any] | None,
    seconds: float,
    run_data: RunData,
    load: MachineLoad,
) -> TimeEstimate:
    """Return the time of the whole run, from short ones with its own loop, data pipeline and callbacks.

    Args:
        load: of the machine before this command's own work.
    """
    batch = cfg.derived.per_device_batch
    # The fits read the data themselves, and what this process occupies is measured.
    run_data.release_module()
    timing, startup, resident = _probe_time(cfg, facts, seconds)
    work = _plan_run_length(cfg, timing)
    total = probe.estimate_run_seconds(timing, work, startup) if work else math.nan
    if (cap := parse_max_time(cfg.trainer.get("max_time"))) is not None:
        # `trainer.max_time` ends the run.
        total = min(total, cap)
    passes = cfg.trainer.get("accumulate_grad_batches", 1) or 1
    step_s = passes * timing.pass_s
    throughput = cfg.data.batch_size / step_s if batch and step_s else math.nan
    uncertainty = load.compute_uncertainty(cfg.derived.threads * cfg.derived.world_size)
    return TimeEstimate(
        seconds=total,
        # A machine that is not steady now won't be then, nor will it have as many other processes.
        error=max(probe.ERROR, timing.spread, uncertainty),
        steps=work.passes // passes if work else 0,
        step_s=step_s,
        samples_per_s=throughput,
        validation_s=timing.validation_s * (work.validation_batches if work else 0),
        startup_s=startup,
        resident_bytes=resident,
        busy=f", load {load.processes:.1f} on {load.cores} cores" if uncertainty > probe.ERROR else "",
    )


def estimate_occupied_bytes(peak: int) -> int:
    """Return the most that a process with so many bytes of tensors at its peak occupies, bytes.

    Python, torch and the data occupy what they do in this process, which holds the same.
    """
    return round(_RESIDENT_FACTOR * peak + max(get_resident_bytes(), _BASE_BYTES))


def can_probe_time(cfg: DictConfig, memory: StepMemory) -> bool:
    """Return whether the run fits into the free memory: else none of it can be timed here."""
    return cfg.derived.accelerator != "cpu" or _is_fitting(memory.peak, cfg.derived.world_size)


def _is_fitting(peak: int, processes: int = 1) -> bool:
    """Return whether processes with so many bytes of tensors, each, fit into the free memory."""
    # 0 where the system does not report it: then it is tried.
    return not (free := get_free_memory()) or processes * (_RESIDENT_FACTOR * peak + _BASE_BYTES) < free


def _plan_run_length(cfg: DictConfig, timing: probe.Timing) -> RunLength | None:
    """Return the work of the run, from the config, or from the loaders where the data reports no facts."""
    derived, accumulate = cfg.derived, cfg.trainer.get("accumulate_grad_batches", 1) or 1
    epochs = cfg.trainer.get("max_epochs")
    if derived.steps_per_epoch is not None:
        total = derived.total_steps
        return compute_run_length(
            cfg.trainer,
            derived.steps_per_epoch * accumulate,
            total * accumulate if total is not None else None,
            count_validation_batches(cfg.derived),
        )
    if timing.all_passes is None:
        return None
    passes = max(1, limit_batches(cfg.trainer.get("limit_train_batches"), timing.all_passes))
    # -1 is Lightning's "no limit".
    steps = cfg.trainer.get("max_steps", -1) or -1
    ends = [passes * epochs] * bool(epochs and epochs > 0) + [steps * accumulate] * (steps > 0)
    return compute_run_length(cfg.trainer, passes, min(ends, default=None), timing.all_validation_batches)


def _probe_time(cfg: DictConfig, facts: Mapping[str, Any] | None, seconds: float) -> tuple[probe.Timing, float, int]:
    """Run a short fit to warm up, then one of about `seconds`; return the timing, seconds that a run takes once, and
    bytes.
    """
    accumulate = cfg.trainer.get("accumulate_grad_batches", 1) or 1
    passes = cfg.derived.steps_per_epoch * accumulate if cfg.derived.steps_per_epoch else None
    validation = count_validation_batches(cfg.derived)
    if validation is not None:
        validation = limit_batches(cfg.trainer.get("limit_val_batches"), validation)
    shown = 2 if validation is None else validation
    few = (min(_FIRST_PASSES * accumulate, passes or _FIRST_PASSES), min(_FIRST_VALIDATION, shown))
    # Its first steps are slow (imports, allocations, caches): it only shows how many steps fit into the time of the
    # next.
    first, fit = _run_timed_fit(cfg, facts, few, epochs=1)
    passes = passes if passes is not None else first.all_passes
    validation = validation if validation is not None else first.all_validation_batches
    steady, last = _run_timed_fit(
        cfg, facts, probe.limit_probe_epoch(first, seconds, passes, validation, accumulate), epochs=probe.EPOCHS
    )
    # The larger of the two: the longer fit need not have the higher peak.
    resident = int(max(fit["peak_memory_bytes"], last["peak_memory_bytes"]))
    return steady, probe.estimate_startup_seconds(fit["seconds"], first, steady), resident


def _run_timed_fit(
    cfg: DictConfig,
    facts: Mapping[str, Any] | None,
    batches: tuple[int, int],
    epochs: int,
) -> tuple[probe.Timing, dict[str, Any]]:
    """Run a short fit with a clock."""
    with short_fit.provide_scratch_folder("estimate") as folder:
        clock = folder / "clock.json"
        callback = {"_target_": "mlscale.estimate.time_probe.Clock", "path": str(clock)}
        short = short_fit.shorten_config(cfg, batches, epochs, {"estimate_clock": callback})
        outcome = short_fit.run_short_fit(short, facts, folder, command="estimate")
        return probe.read_timing(clock), outcome
