"""The memory of a process whose weights, gradients and optimizer state are sharded, from that of a whole one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from mlscale.estimate.step_memory import StepMemory
from mlscale.train.strategies.wrapping import choose_modules

SHARDED_ERROR = 0.2  # against the allocator on two processes: −3 to +16 %, docs/benchmarks.md


def shard_step_memory(
    memory: StepMemory,
    task: nn.Module,
    ranks: int,
    *,
    wrap: Sequence[str] | None = None,
    min_params: int | None = None,
    weight_bytes: int = 4,
    keeps_gradients: bool = False,
) -> StepMemory:
    """Return the memory of one of `ranks` processes that shard what `memory` is of.

    Activations stay as they were. Gathered weights come on top: what is in no part of its own for the whole step, and
    of the largest part the weights, those of the next one, its gradient, and the buffers in which they are sent.

    Args:
        task: with parameters of the right shapes.
        wrap, min_params: of the strategy.
        weight_bytes: of a gathered number: 2 in mixed precision.
        keeps_gradients: gradients are accumulated over passes, and whole until the last one.
    """
    units = [
        sum(value.numel() for value in unit.parameters()) for unit in choose_modules(task, wrap, min_params).values()
    ]
    total = sum(value.numel() for value in task.parameters())
    rest, largest = total - sum(units), max(units, default=0)
    # The gradient of what is gathered for the whole step is there at its end, too.
    gathered = weight_bytes * (2 * rest + 5 * largest)
    buffers = sum(value.nbytes for value in task.buffers())
    sharded = {
        "parameters": (memory.parameters - buffers) // ranks + buffers + gathered,
        "gradients": total * weight_bytes if keeps_gradients else memory.gradients // ranks,
        "optimizer_state": memory.optimizer_state // ranks,
    }
    how = f"{memory.how}, then sharded over {ranks} processes by the sizes of the model's parts"
    peak = sum(sharded.values()) + memory.activations + memory.scratch
    return replace(memory, peak=peak, error=max(memory.error, SHARDED_ERROR), how=how, **sharded)
