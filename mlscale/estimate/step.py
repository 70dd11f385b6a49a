"""Take training steps in Lightning's order, without a trainer, to measure their memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from mlscale.errors import MLScaleError
from mlscale.estimate.live_tensors import LiveTensorMode, iterate_tensors, map_tensors

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_WEIGHTS = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
# Takes a batch, the number of a pass, and whether it is the step's last one; returns what the task's step returns.
TakeStep = Callable[[object, int, bool], Any]
PrepareTask = Callable[[LightningModule], TakeStep]
PRECISIONS = ("32-true", *_AUTOCAST, *_WEIGHTS)


@dataclass(frozen=True)
class StepSettings:
    """The settings of a run's training steps.

    Attributes:
        precision: Lightning's, e.g. "bf16-mixed".
        passes: forward and backward passes of one optimizer step; at most two are run, as more need no more memory.
        clip: the largest norm of the gradients; None for no clipping.
        foreach: optimizers update all parameters at once, as by default on a CUDA device.
        cpu_kernels: it runs on a CPU, whose kernels need scratch memory of their own.
    """

    precision: str = "32-true"
    passes: int = 1
    clip: float | None = None
    foreach: bool = False
    cpu_kernels: bool = True


class Processes(Protocol):
    """Several processes that train together, of which the first one's steps are taken."""

    @property
    def ranks(self) -> int:
        """Return their number."""

    @property
    def measured_error(self) -> str:
        """Return how far estimates were off in measured runs, as a phrase."""

    def simulate_first(self, precision: str, live: LiveTensorMode) -> AbstractContextManager[PrepareTask]:
        """Return a context manager within which this process is the first of them, and sends and receives nothing.

        Its function prepares a task in place as the strategy does, and returns the task's step.

        Args:
            precision: Lightning's.
            live: counts the tensors.
        """


def run_two_steps(
    task: LightningModule, batch: object, loop: StepSettings, live: LiveTensorMode, prepare: PrepareTask | None = None
) -> None:
    """Take two optimizer steps of `task` on `batch`, and name the tensors that they hold in `live`.

    Two, since the optimizer's state and, in the next forward pass, the old gradients exist only after the first. As in
    Lightning, gradients are freed after the forward pass of the next step, not before.

    Args:
        batch: as from the loader, on the device and of the kind (real or fake) of the task's parameters.
        prepare: prepares the task for a process of several, and returns its step; None for one process.

    Raises:
        MLScaleError: the task drives its optimizers itself, or its precision is not known here.
    """
    # Such a task's step contains the optimizer's, in an order that is unknown here.
    if not task.automatic_optimization:
        raise MLScaleError(
            "the task drives its optimizers itself",
            where="task.automatic_optimization",
            fix="debug=limit, which trains a tenth of each epoch; or automatic_optimization = True in the task",
        )
    if loop.precision not in PRECISIONS:
        raise MLScaleError(
            f"memory of precision {loop.precision} is not known",
            where="precision",
            fix="precision=bf16\nprecision=fp32",
        )
    if weights := _WEIGHTS.get(loop.precision):
        task.to(weights)
        batch = map_tensors(batch, lambda tensor: tensor.to(weights) if tensor.is_floating_point() else tensor)
    task.train()
    take_step = prepare(task) if prepare else lambda batch, number, _: task.training_step(batch, number)
    live.set_purpose("parameters", list(task.parameters()))
    live.set_purpose("buffers", list(task.buffers()))
    live.set_purpose("batch", batch)
    optimizers = find_optimizers(task.configure_optimizers())
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            # None lets torch choose by device: the trace is on a CPU, where it would not choose `foreach`, which keeps
            # temporary copies of all parameters at once.
            if loop.foreach and group.get("foreach", False) is None and not group.get("fused"):
                group["foreach"] = True
    for _ in range(2):
        passes = min(loop.passes, 2)
        for number in range(passes):
            with _enable_autocast(loop.precision):
                loss = extract_loss(take_step(batch, number, number + 1 == passes))
            if number == 0:
                for optimizer in optimizers:
                    optimizer.zero_grad(set_to_none=True)
            (loss / loop.passes).backward()  # type: ignore[no-untyped-call]
            del loss  # else it would count during the next forward pass
        live.set_purpose("gradients", [p.grad for p in task.parameters() if p.grad is not None])
        # Where the optimizer's state is not on the device, neither is what its step computes.
        with live.pause if "optimizer_state" in live.hosted else contextlib.nullcontext():
            if loop.clip:
                nn.utils.clip_grad_norm_(task.parameters(), loop.clip)
            for optimizer in optimizers:
                optimizer.step()
                live.set_purpose("optimizer_state", list(optimizer.state.values()))
    live.own_state_bytes, live.whole_state_bytes = _measure_state(task, optimizers)


def _measure_state(task: LightningModule, optimizers: list[torch.optim.Optimizer]) -> tuple[int, int]:
    """Return the bytes that a checkpoint has of this process, and of all that share the model."""
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    values = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    tensors = [*task.parameters(), *task.buffers(), *values]
    # A sharded tensor has the shape of the whole one, and holds its shard.
    whole = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    own = sum(tensor.numel() * tensor.element_size() for tensor in iterate_tensors(tensors))
    return own, whole


def find_optimizers(configured: object) -> list[torch.optim.Optimizer]:
    """Return the optimizers in any result that `configure_optimizers` may have."""
    if isinstance(configured, torch.optim.Optimizer):
        return [configured]
    if isinstance(configured, Mapping):
        # A scheduler's dictionary ({"scheduler", "interval"}) has no optimizer.
        return find_optimizers(configured.get("optimizer"))
    if isinstance(configured, list | tuple):
        return [optimizer for item in configured for optimizer in find_optimizers(item)]
    return []


def extract_loss(output: object) -> Tensor:
    loss = output["loss"] if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        raise MLScaleError(
            "the training step returns no loss",
            where="task",
            fix="return the loss from training_step, or a dict with it as 'loss'",
        )
    return loss


@contextlib.contextmanager
def _enable_autocast(precision: str) -> Iterator[None]:
    """Cast as Lightning does in this block: it includes the forward pass and the loss, not the backward pass."""
    dtype = _AUTOCAST.get(precision)
    with torch.autocast("cpu", dtype=dtype) if dtype else contextlib.nullcontext():
        yield
