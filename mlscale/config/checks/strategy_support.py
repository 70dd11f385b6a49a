"""Refuse combinations that a strategy can't train, and report its settings that have no effect in a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from mlscale.errors import MLScaleError

_PREFIX = "mlscale.train.strategies."
_DEFAULTS: dict[str, Any] = {  # of settings that only several processes use
    "find_unused_parameters": False, "gradient_as_bucket_view": True, "static_graph": False,
    "gradient_reduction": "fp32", "wrap_min_params": None, "reduce_dtype": "fp32", "reshard_after_forward": True,
    "cpu_offload": False, "replicate": 1,
}  # fmt: skip
_COPYING = ("StochasticWeightAveraging", "WeightAveraging", "EMAWeightAveraging")
_EIGHT_BIT = "mlscale.train.eight_bit.adamw_8bit"
_FREEZE = "mlscale.train.callbacks.Freeze"


def get_strategy_name(cfg: DictConfig) -> str:
    """Return the option of the group `strategy`; '' for a third-party one."""
    target = str((cfg.get("strategy") or {}).get("_target_", ""))
    return target.removeprefix(_PREFIX) if target.startswith(_PREFIX) else ""


def check_strategy(cfg: DictConfig, world_size: int) -> Iterator[MLScaleError]:
    """Yield a problem for each setting with which the strategy of several processes can't train."""
    if world_size == 1:
        return
    if get_strategy_name(cfg) == "fsdp":
        yield from _check_fsdp(cfg, world_size)
    elif (cfg.get("strategy") or {}).get("static_graph"):
        yield from _check_static_graph(cfg)


def _check_fsdp(cfg: DictConfig, world_size: int) -> Iterator[MLScaleError]:
    if str(cfg.precision.value) == "16-mixed":
        yield MLScaleError(
            "strategy=fsdp does not train with a loss scale",
            where="precision, strategy",
            why="an overflow on one rank must skip the step on all of them, which is not tried here",
            fix="precision=bf16\nstrategy=ddp",
        )
    if cfg.trainer.get("sync_batchnorm"):
        yield MLScaleError(
            "strategy=fsdp does not exchange the statistics of BatchNorm",
            where="trainer.sync_batchnorm, strategy",
            why="Lightning does it for ddp alone, and would leave it out without a message",
            fix="strategy=ddp\ntrainer.sync_batchnorm=false",
        )
    if "bitsandbytes" in (target := str((cfg.get("optimizer") or {}).get("_target_", ""))) or target == _EIGHT_BIT:
        yield MLScaleError(
            "bitsandbytes can't compute with sharded parameters",
            where="optimizer, strategy",
            why="strategy=fsdp divides the optimizer's state over the processes, in 32 bits",
            fix="optimizer=adamw\nstrategy=ddp",
        )
    if names := list(cfg.get("compress") or {}):
        yield MLScaleError(
            "strategy=fsdp can't compress at the end of a run",
            where=f"compress: {', '.join(names)}",
            why="one process compresses the whole model, and it holds a part of it",
            fix=f"compress=none, and after the run mlscale compress last compress={names[0]}",
        )
    replicate = cfg.strategy.get("replicate", 1) or 1
    if replicate < 1 or world_size % replicate or replicate == world_size:
        yield create_replicate_error(replicate, world_size)
    for name, node in (cfg.get("callbacks") or {}).items():
        if str((node or {}).get("_target_", "")).rpartition(".")[2] in _COPYING:
            yield MLScaleError(
                f"callbacks.{name} copies the model, and a sharded model can't be copied",
                where=f"callbacks.{name}, strategy",
                fix=f"~callbacks.{name}, and callbacks=[default,ema] for an average of the weights",
            )


def _check_static_graph(cfg: DictConfig) -> Iterator[MLScaleError]:
    accumulate = cfg.trainer.get("accumulate_grad_batches", 1) or 1
    if accumulate > 1:
        yield MLScaleError(
            "strategy.static_graph can't be combined with accumulated passes",
            where=f"strategy.static_graph, trainer.accumulate_grad_batches={accumulate}",
            why="torch learns the graph in the first pass that sends gradients, and fails in one before it",
            fix="strategy.static_graph=false",
        )
    for name, node in (cfg.get("callbacks") or {}).items():
        if (node or {}).get("_target_") == _FREEZE:
            yield MLScaleError(
                f"callbacks.{name} changes which parameters a step uses, and strategy.static_graph forbids it",
                where=f"callbacks.{name}, strategy.static_graph",
                fix="strategy.static_graph=false",
            )


def create_replicate_error(replicate: int, world_size: int) -> MLScaleError:
    """Return the error of groups that do not divide the processes."""
    return MLScaleError(
        f"{world_size} processes can't be {replicate} groups that each hold a sharded model",
        where="strategy.replicate",
        why="every group has the same number of processes, two or more",
        fix="strategy.replicate=1, which shards over all\nstrategy=ddp, where every process holds the whole model",
    )


def collect_strategy_notices(cfg: DictConfig) -> list[str]:
    """Return a line for each setting of the strategy that has no effect in this run."""
    name, node = get_strategy_name(cfg), cfg.get("strategy") or {}
    changed = [key for key, default in _DEFAULTS.items() if node.get(key, default) != default]
    if node.get("wrap") and not cfg.get("activation_checkpointing"):
        changed.append("wrap")
    if cfg.derived.world_size == 1:
        if name in ("ddp", "fsdp"):
            return [f"strategy={name} has no effect with one device"]
        return [f"strategy.{key} has no effect with one device" for key in changed] if name else []
    lines = []
    numbers, accelerator = cfg.get("precision") or {}, cfg.derived.accelerator
    precision = str(numbers.get("value"))
    if node.get("static_graph") and node.get("find_unused_parameters"):
        lines.append("strategy.find_unused_parameters has no effect: static_graph finds them in the first step")
    if name == "fsdp":
        if node.get("reduce_dtype", "fp32") != "fp32" and precision != "bf16-mixed":
            lines.append(f"strategy.reduce_dtype has no effect with {precision}: it is for precision=bf16")
        if node.get("cpu_offload") and accelerator != "cuda":
            lines.append(f"strategy.cpu_offload has no effect on {accelerator}: it is for CUDA devices")
        if numbers.get("memory_format"):
            lines.append("precision.memory_format has no effect: strategy=fsdp keeps shards contiguous")
    elif node.get("gradient_reduction", "fp32") != "fp32" and precision == "bf16-true":
        lines.append("strategy.gradient_reduction has no effect with bf16-true: gradients are in it already")
    return lines
