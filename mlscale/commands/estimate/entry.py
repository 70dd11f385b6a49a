"""Estimate memory, time and cost of a training run before it starts."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlscale.config.checks.dali_support import check_dali_machine
from mlscale.config.composition.frozen import add_derived
from mlscale.config.derive import derive_values
from mlscale.errors import Exit, MLScaleError
from mlscale.estimate.step_memory import StepMemory
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result, format_duration, format_size
from mlscale.runs.host.machine import get_memory_bytes, measure_load
from mlscale.secrets.mask import Masker, mask_output

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.commands.estimate.measurements import TimeEstimate
    from mlscale.estimate.prices import Instance, PriceFile
    from mlscale.estimate.step_memory import StepMemory

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def run(cfg: DictConfig) -> Result:
    """Trace two steps for memory, take a short probe for time, look up the price; compare with the limits.

    No run folder is made.

    Raises:
        MLScaleError: what the data, the machine or the price file lacks.
    """
    from mlscale.assembly.run_data import RunData
    from mlscale.estimate.prices import load_price_file
    from mlscale.launch.local_devices import detect_local_devices
    from mlscale.launch.local_launch import start_fork_server

    # Before torch is imported: of what was allocated before it counts, it warns in the middle of the lines.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    load = measure_load()  # first: from here on this process itself is a load on the machine
    # Limits, prices and the instance are checked before the measurement, which takes much longer.
    settings = EstimateSettings.read_estimate_settings(cfg.estimate)
    prices = load_price_file(settings.prices)
    instance = prices.find_instance(settings.instance) if settings.instance else None
    start_fork_server(cfg.trainer.devices)
    masker = Masker.create_for_run(cfg)
    check_dali_machine(cfg, has_cuda=detect_local_devices().cuda > 0)
    run_data = RunData()
    facts = run_data.collect_facts(cfg)
    derived = derive_values(cfg, facts, detect_local_devices())
    resolved_cfg = add_derived(cfg, {**derived, "run_dir": "estimate", "name": "estimate"})
    # An instance with GPUs is estimated as CUDA even where this machine has none: memory is traced, not measured.
    accelerator = settings.accelerator or ("cuda" if instance and instance.gpus else resolved_cfg.derived.accelerator)
    # Imported late, because it imports torch: wrong settings are reported without that.
    from mlscale.commands.estimate.measurements import (
        can_probe_time,
        estimate_occupied_bytes,
        measure_memory,
        measure_time,
    )

    with mask_output(masker):
        print_masked_lines([f"estimate  memory: two steps of {_format_batch(resolved_cfg)}"], masker)
        memory = measure_memory(resolved_cfg, accelerator, facts, run_data)
        time = None
        if settings.probe_seconds > 0 and can_probe_time(resolved_cfg, memory):
            print_masked_lines(
                [f"estimate  time: a probe of about {format_duration(settings.probe_seconds)} on this machine"], masker
            )
            time = measure_time(resolved_cfg, facts, settings.probe_seconds, run_data, load)
        # On a device only tensors count; on a CPU the process has Python, torch and the data besides.
        most = max(memory.peak, memory.start)
        is_sharded = bool((resolved_cfg.get("strategy") or {}).get("sharded_checkpoint"))
        save_bytes = memory.compute_save_bytes(is_sharded=is_sharded) if memory.start else 0
        occupied = estimate_occupied_bytes(most) + save_bytes if accelerator == "cpu" else memory.peak
        terms = compute_cuda_overhead(memory, resolved_cfg.derived.world_size) if accelerator == "cuda" else {}
        limit = _resolve_memory_limit(settings, instance, accelerator, resolved_cfg.derived.world_size)
    return build_estimate_result(
        EstimateMeasurements(memory, terms, accelerator, limit, time, occupied, save_bytes), settings, prices, instance
    )


@dataclass(frozen=True)
class EstimateSettings:
    """The settings of the command; see conf/command/estimate.yaml."""

    probe_seconds: float
    accelerator: str | None
    memory_limit: int | None
    max_hours: float | None
    budget_usd: float | None
    instance: str | None
    usd_per_hour: float | None
    prices: str | None

    @classmethod
    def read_estimate_settings(cls, node: Mapping[str, Any]) -> EstimateSettings:
        """Read and check them.

        Raises:
            MLScaleError: an invalid limit.
        """
        limit = node["memory_limit"]
        # As text: YAML reads 1000000 as a number, and 24GiB as text.
        values = {**node, "memory_limit": None if limit is None else parse_bytes(str(limit))}
        return cls(**values)


@dataclass(frozen=True)
class EstimateMeasurements:
    """The measured and computed values.

    Attributes:
        terms: bytes beyond the tensors, by what they are for; on CUDA devices only.
        limit: bytes that a process may use; 0 where unknown.
        time: None if no probe was requested, or the batch does not fit into the free memory.
        occupied: bytes that a process occupies at most, its tensors among them, where no probe has measured it.
        save_bytes: bytes of the host's memory that a checkpoint of a sharded model takes.
    """

    memory: StepMemory
    terms: Mapping[str, int]
    accelerator: str
    limit: int
    time: TimeEstimate | None
    occupied: int
    save_bytes: int = 0

    @property
    def resident(self) -> int | None:
        """Bytes that the probe's process occupied; None if no probe ran."""
        return self.time.resident_bytes if self.time else None

    @property
    def needed(self) -> int:
        """Bytes to compare with the limit: with those that the device needs in addition, or that a process occupies."""
        # On CUDA devices: the bytes beyond the tensors are estimates, added to those that were traced.
        if self.terms:
            return self.memory.peak + sum(self.terms.values())
        return max(self.memory.peak, self.resident or self.occupied)


def build_estimate_result(
    measurements: EstimateMeasurements, settings: EstimateSettings, prices: PriceFile, instance: Instance | None
) -> Result:
    """Return the result: metrics, a sentence, and whether the limits hold."""
    from mlscale.estimate.prices import compute_cost_usd

    seconds = measurements.time.seconds if measurements.time else math.nan
    # A typed price comes before that of the table, which may be old.
    hourly = settings.usd_per_hour if settings.usd_per_hour is not None else instance.usd_per_hour if instance else None
    cost = compute_cost_usd(seconds, hourly)
    exceeded = _list_exceeded_limits(measurements, seconds, cost, settings)
    memory = measurements.memory
    metrics: dict[str, float] = {
        "peak_memory_bytes": memory.peak,
        "peak_memory_error_percent": round(memory.error * 100),
        "parameters_bytes": memory.parameters,
        "gradients_bytes": memory.gradients,
        "optimizer_state_bytes": memory.optimizer_state,
        "activations_bytes": memory.activations,
        "scratch_bytes": memory.scratch,
        **memory.collect_processes_metrics(measurements.save_bytes),
        **{f"unverified_{name}_bytes": count for name, count in measurements.terms.items()},
        "needed_memory_bytes": measurements.needed,
        "memory_limit_bytes": measurements.limit or math.nan,
        "time_s": seconds,
    }
    if measurements.time:
        metrics |= measurements.time.collect_time_metrics()
    metrics["cost_usd"] = cost
    if hourly is not None:
        metrics["price_usd_per_hour"] = hourly
    sources = {"memory_by": memory.how}
    if instance and settings.usd_per_hour is None:
        metrics["price_age_days"] = prices.get_age_days()
        sources["price_by"] = f"{prices.path}: {prices.format_age()}; {instance.source}"
    return Result(
        command="estimate",
        ok=not exceeded,
        sentence="; ".join([_format_estimate(measurements, cost, hourly, instance, settings), *exceeded]),
        metrics=metrics,
        details=sources,
        # An exceeded limit is a result, not an error: scripts decide by the exit code.
        exit=int(Exit.GATE if exceeded else Exit.DONE),
    )


def _format_estimate(
    measurements: EstimateMeasurements,
    cost: float,
    hourly: float | None,
    instance: Instance | None,
    settings: EstimateSettings,
) -> str:
    peak, error = measurements.memory.peak, round(measurements.memory.error * 100)
    # More than the whole is not an error that goes both ways: a trace then misses most of the memory.
    most = round(peak * (1 + measurements.memory.error))
    needed = f"{format_size(peak)} (±{error} %)" if error < 100 else f"{format_size(peak)} to {format_size(most)}"
    parts = [f"needs {needed} per process"]
    if measurements.terms:
        parts[0] += f" and {format_size(sum(measurements.terms.values()))} that CUDA needs besides (not verified)"
    elif measurements.accelerator == "cpu" and not measurements.resident:
        parts[0] += f", which occupies up to {format_size(measurements.occupied)}"
    if measurements.time is None:
        why = ", since the run does not fit into the free memory" if settings.probe_seconds > 0 else ""
        return f"{parts[0]}; time not probed{why}"
    # The run has no end: a single step is all that can be stated.
    if not math.isfinite(measurements.time.seconds):
        step = format_duration(measurements.time.step_s)
        return f"{parts[0]}; {step} a step on this machine, and the run has no end: trainer.max_epochs=… gives it one"
    time, factor = measurements.time.seconds, 1 + measurements.time.error
    # As of memory: from 100 % on it does not go both ways.
    ends = f"{format_duration(time / factor)} to {format_duration(time * factor)}"
    within = f"±{round(100 * factor - 100)} %" if factor < 2 else ends
    parts.append(f"{format_duration(time)} ({within}{measurements.time.busy}) on this machine")
    if hourly is None:
        parts.append("cost unknown")
    else:
        where = instance.name if instance else f"${hourly:g} per hour"
        parts.append(f"${cost:,.2f} at {where}, if that is as fast as this machine")
    return ", ".join(parts)


def _list_exceeded_limits(
    measurements: EstimateMeasurements, seconds: float, cost: float, settings: EstimateSettings
) -> list[str]:
    """Return a phrase for each limit that is exceeded; a limit of something unknown counts as exceeded."""
    exceeded = []
    if measurements.limit and measurements.needed > measurements.limit:
        bound = "" if measurements.terms or measurements.resident else "up to "
        measure = "; estimate.probe_seconds=20 measures it" if bound and settings.probe_seconds <= 0 else ""
        exceeded.append(
            f"{bound}{format_size(measurements.needed)} are more than the {format_size(measurements.limit)} "
            f"of a process: trainer.accumulate_grad_batches=… holds fewer samples at a time{measure}"
        )
    # Negated, because an unknown time is NaN and must not pass the limit.
    if settings.max_hours is not None and not seconds <= settings.max_hours * 3600:
        amount = format_duration(seconds) if math.isfinite(seconds) else "an unknown time"
        exceeded.append(f"{amount} is more than estimate.max_hours={settings.max_hours:g}")
    if settings.budget_usd is not None and not cost <= settings.budget_usd:
        amount = f"${cost:,.2f}" if math.isfinite(cost) else "an unknown cost"
        exceeded.append(f"{amount} is more than estimate.budget_usd={settings.budget_usd:g}")
    return exceeded


def _resolve_memory_limit(
    settings: EstimateSettings, instance: Instance | None, accelerator: str, world_size: int
) -> int:
    """Return the bytes that a process may use: as typed, the instance's GPU's, or this machine's; 0 if unknown."""
    if settings.memory_limit is not None:
        return settings.memory_limit
    if instance and instance.gpu_memory_gib:
        return int(instance.gpu_memory_gib * 2**30)
    if accelerator == "cpu":
        # All processes share the machine's memory.
        return get_memory_bytes() // world_size
    import torch

    cards = range(torch.cuda.device_count() if accelerator == "cuda" and torch.cuda.is_available() else 0)
    # The smallest card: every process takes the same.
    return min((torch.cuda.get_device_properties(card).total_memory for card in cards), default=0)


def parse_bytes(text: str) -> int:
    """Return an amount of memory, such as 24GiB, 500 MB or 1000000, as bytes.

    Raises:
        MLScaleError: it is not an amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise MLScaleError(
            f"'{text}' is not an amount of memory", where="estimate.memory_limit", fix="estimate.memory_limit=24GiB"
        )
    return int(float(match[1]) * unit)


def _format_batch(cfg: DictConfig) -> str:
    count = cfg.derived.per_device_batch
    return "a batch of the loader" if count is None else f"{count} sample{'s' * (count != 1)}"


_GIB = 2**30
# The upper end of the reported values, as the question is whether a run fits.
CONTEXT = int(0.6 * _GIB)  # 0.3 to 0.6 GiB: the driver's context and the kernels that were loaded
WORKSPACE = 32 * 2**20  # cuBLAS's default on Hopper, 8 MiB before
NCCL = int(0.5 * _GIB)  # 0.2 to 0.5 GiB: channels between the ranks
FRAGMENTATION = 0.2  # of the peak: what the caching allocator reserves and can't use


def compute_cuda_overhead(memory: StepMemory, world_size: int) -> dict[str, int]:
    """Return the bytes to add to the peak of a process on a CUDA device, by purpose.

    Args:
        world_size: number of ranks; several of them communicate by NCCL.
    """
    terms = {"context": CONTEXT, "workspace": WORKSPACE, "fragmentation": int(FRAGMENTATION * memory.peak)}
    if world_size > 1:
        terms["nccl"] = NCCL
    return terms
