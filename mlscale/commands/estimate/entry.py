"""Estimate memory, time and cost of a training run before it starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlscale.config.composition.frozen import with_derived
from mlscale.config.derive import derive
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.start_notices import say
from mlscale.report import Result, duration, size
from mlscale.runs.machine import memory_bytes
from mlscale.secrets.mask import Masker, masked_output

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.commands.estimate.measurements import Time
    from mlscale.estimate.prices import Instance, Prices
    from mlscale.estimate.step_memory import Memory

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def run(cfg: DictConfig) -> Result:
    """Trace two steps for memory, take a short probe for time, look up the price; compare with the limits.

    No run folder is made.

    Raises:
        MLScaleError: what the data, the machine or the price file lacks.
    """
    from mlscale.assembly.facts import data_facts
    from mlscale.assembly.precision_probe import outcome_of
    from mlscale.estimate.prices import load
    from mlscale.launch.local_devices import this_machine
    from mlscale.launch.local_launch import warm_up

    # Limits, prices and the instance are checked first: the measurement takes much longer.
    wanted = Wanted.of(cfg.estimate)
    prices = load(wanted.prices)
    instance = prices.find(wanted.instance) if wanted.instance else None
    warm_up(cfg.trainer.devices)
    masker = Masker.of(cfg)
    facts = data_facts(cfg)
    derived = derive(cfg, facts, this_machine())
    derived |= outcome_of(cfg, derived, this_machine())
    ready = with_derived(cfg, {**derived, "run_dir": "estimate", "name": "estimate"})
    # An instance with GPUs is estimated as CUDA even where this machine has none: memory is traced, not measured.
    accelerator = wanted.accelerator or ("cuda" if instance and instance.gpus else ready.derived.accelerator)
    # Imported late, because it imports torch: wrong settings are reported without that.
    from mlscale.commands.estimate.measurements import measure_memory, measure_time, occupied_bytes

    with masked_output(masker):
        say([f"estimate  memory: two steps of {_batch(ready)}"], masker)
        memory = measure_memory(ready, accelerator)
        # On a device only tensors count; on a CPU the process has Python, torch and the data besides.
        occupied = occupied_bytes(memory.peak) if accelerator == "cpu" else memory.peak
        terms = _terms(memory, accelerator, ready)
        limit = _limit(wanted, instance, accelerator, ready.derived.world_size)
        time = None
        if wanted.probe_seconds > 0:
            say([f"estimate  time: a probe of about {duration(wanted.probe_seconds)} on this machine"], masker)
            time = measure_time(ready, facts, wanted.probe_seconds, memory)
    return conclude(Found(memory, terms, accelerator, limit, time, occupied), wanted, prices, instance)


@dataclass(frozen=True)
class Wanted:
    """The settings of the command; see conf/verb/estimate.yaml."""

    probe_seconds: float
    accelerator: str | None
    memory_limit: int | None
    max_hours: float | None
    budget_usd: float | None
    instance: str | None
    usd_per_hour: float | None
    prices: str | None

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Wanted:
        """Read and check them.

        Raises:
            MLScaleError: an invalid limit.
        """
        if node["accelerator"] not in (None, "cpu", "cuda", "mps"):
            raise MLScaleError(
                f"unknown accelerator '{node['accelerator']}'",
                where="estimate.accelerator",
                fix="estimate.accelerator=cpu, cuda or mps",
            )
        limit = node["memory_limit"]
        # As text: YAML reads 1000000 as a number, and 24GiB as text.
        values = {**node, "memory_limit": None if limit is None else bytes_of(str(limit))}
        return cls(**values)


@dataclass(frozen=True)
class Found:
    """The measured and computed values.

    Attributes:
        terms: bytes beyond the tensors, by what they are for; on CUDA devices only.
        limit: bytes that a process may use; 0 where unknown.
        time: None if no probe was requested.
        occupied: bytes that a process occupies at most, its tensors among them, where no probe has measured it.
    """

    memory: Memory
    terms: Mapping[str, int]
    accelerator: str
    limit: int
    time: Time | None
    occupied: int

    @property
    def resident(self) -> int | None:
        """Bytes that the probe's process occupied; None if no probe ran with the whole batch."""
        return self.time.resident_bytes if self.time else None

    @property
    def needed(self) -> int:
        """Bytes to compare with the limit: with those that the device needs in addition, or that a process occupies."""
        # On CUDA devices: the bytes beyond the tensors are estimates, added to those that were traced.
        if self.terms:
            return self.memory.peak + sum(self.terms.values())
        return max(self.memory.peak, self.resident or self.occupied)


def conclude(found: Found, wanted: Wanted, prices: Prices, instance: Instance | None) -> Result:
    """Return the result: metrics, a sentence, and whether the limits hold."""
    from mlscale.estimate.prices import cost_usd

    seconds = found.time.seconds if found.time else math.nan
    # A typed price comes before that of the table, which may be old.
    hourly = wanted.usd_per_hour if wanted.usd_per_hour is not None else instance.usd_per_hour if instance else None
    cost = cost_usd(seconds, hourly)
    broken = _broken(found, seconds, cost, wanted)
    memory, error = found.memory, round(found.memory.error * 100)
    metrics: dict[str, float] = {
        "peak_memory_bytes": memory.peak,
        "peak_memory_error_percent": error,
        "parameters_bytes": memory.parameters,
        "gradients_bytes": memory.gradients,
        "optimizer_state_bytes": memory.optimizer_state,
        "activations_bytes": memory.activations,
        "scratch_bytes": memory.scratch,
        **{f"unverified_{name}_bytes": count for name, count in found.terms.items()},
        "needed_memory_bytes": found.needed,
        "memory_limit_bytes": found.limit or math.nan,
        "time_s": seconds,
    }
    if found.time:
        metrics |= found.time.metrics()
    metrics["cost_usd"] = cost
    if hourly is not None:
        metrics["price_usd_per_hour"] = hourly
    told = {"memory_by": memory.how}
    if found.time and found.time.how:
        # Results must show how a number was found where it was not measured directly.
        told["time_by"] = found.time.how
    if instance and wanted.usd_per_hour is None:
        metrics["price_age_days"] = prices.age_days()
        told["price_by"] = f"{prices.path}: {prices.told()}; {instance.source}"
    return Result(
        verb="estimate",
        ok=not broken,
        sentence="; ".join([_sentence(found, cost, hourly, instance, error), *broken]),
        metrics=metrics,
        artifacts=told,
        # An exceeded limit is a result, not an error: scripts decide by the exit code.
        exit=int(Exit.GATE if broken else Exit.DONE),
    )


def _sentence(found: Found, cost: float, hourly: float | None, instance: Instance | None, error: int) -> str:
    parts = [f"needs {size(found.memory.peak)} (±{error} %) per process"]
    if found.terms:
        parts[0] += f" and {size(sum(found.terms.values()))} that CUDA needs besides (not verified)"
    elif found.accelerator == "cpu" and not found.resident:
        parts[0] += f", which occupies up to {size(found.occupied)}"
    if found.time is None:
        return f"{parts[0]}; time not probed"
    # The run has no end: a single step is all that can be stated.
    if not math.isfinite(found.time.seconds):
        step = duration(found.time.step_s)
        return f"{parts[0]}; {step} a step on this machine, and the run has no end: trainer.max_epochs=… gives it one"
    within = round(found.time.error * 100)
    parts.append(f"{duration(found.time.seconds)} (±{within} %) on this machine")
    if hourly is None:
        parts.append("cost unknown")
    else:
        where = instance.name if instance else f"${hourly:g} per hour"
        parts.append(f"${cost:,.2f} at {where}, if that is as fast as this machine")
    return ", ".join(parts)


def _broken(found: Found, seconds: float, cost: float, wanted: Wanted) -> list[str]:
    """Return a phrase for each limit that is exceeded; a limit of something unknown counts as exceeded."""
    broken = []
    if found.limit and found.needed > found.limit:
        bound = "" if found.terms or found.resident else "up to "
        measure = "; estimate.probe_seconds=20 measures it" if bound and found.time is None else ""
        broken.append(
            f"{bound}{size(found.needed)} are more than the {size(found.limit)} of a process: "
            f"trainer.accumulate_grad_batches=… holds fewer samples at a time{measure}"
        )
    # Negated, because an unknown time is NaN and must not pass the limit.
    if wanted.max_hours is not None and not seconds <= wanted.max_hours * 3600:
        told = duration(seconds) if math.isfinite(seconds) else "an unknown time"
        broken.append(f"{told} is more than estimate.max_hours={wanted.max_hours:g}")
    if wanted.budget_usd is not None and not cost <= wanted.budget_usd:
        told = f"${cost:,.2f}" if math.isfinite(cost) else "an unknown cost"
        broken.append(f"{told} is more than estimate.budget_usd={wanted.budget_usd:g}")
    return broken


def _terms(memory: Memory, accelerator: str, cfg: DictConfig) -> dict[str, int]:
    from mlscale.estimate.terms import cuda_terms

    if accelerator != "cuda":
        return {}
    view = bool((cfg.get("strategy") or {}).get("gradient_as_bucket_view", False))
    return cuda_terms(memory, cfg.derived.world_size, bucket_view=view)


def _limit(wanted: Wanted, instance: Instance | None, accelerator: str, world_size: int) -> int:
    """Return the bytes that a process may use: as typed, the instance's GPU's, or this machine's; 0 if unknown."""
    if wanted.memory_limit is not None:
        return wanted.memory_limit
    if instance and instance.gpu_memory_gib:
        return int(instance.gpu_memory_gib * 2**30)
    if accelerator == "cpu":
        # All processes share the machine's memory.
        return memory_bytes() // world_size
    import torch

    cards = range(torch.cuda.device_count() if accelerator == "cuda" and torch.cuda.is_available() else 0)
    # The smallest card: every process takes the same.
    return min((torch.cuda.get_device_properties(card).total_memory for card in cards), default=0)


def bytes_of(text: str) -> int:
    """Return an amount of memory, such as 24GiB, 500 MB or 1000000, as bytes.

    Raises:
        MLScaleError: it is not an amount of memory.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise MLScaleError(
            f"'{text}' is no amount of memory", where="estimate.memory_limit", fix="estimate.memory_limit=24GiB"
        )
    return int(float(found[1]) * unit)


def _batch(cfg: DictConfig) -> str:
    count = cfg.derived.per_device_batch
    return "a batch of the loader" if count is None else f"{count} sample{'s' * (count != 1)}"
