"""The training step of one of several processes that each hold a whole model, with the buckets of DDP.

DDP's own reducer reads values when it puts its buckets in order, which fake tensors do not have. What it holds follows
from its settings: buckets for all gradients, from the start of a run to its end, into which each gradient is copied as
soon as it is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.autograd import Variable

from mlscale.estimate.live_tensors import LiveTensorMode
from mlscale.estimate.step import PrepareTask, TakeStep


@dataclass(frozen=True)
class Replication:
    """Processes that each hold a whole model, and add up their gradients.

    Attributes:
        ranks: their number.
        bucket_view: gradients are views of the buckets; else both are held.
        in_bf16: buckets are sent as copies in bfloat16.
    """

    ranks: int
    bucket_view: bool = True
    in_bf16: bool = False
    # By scripts/bench_estimate_fsdp.py: see docs/benchmarks.md.
    measured_error: ClassVar[str] = "off by up to 0.1 % in 5 runs"

    @contextlib.contextmanager
    def simulate_first(self, precision: str, live: LiveTensorMode) -> Iterator[PrepareTask]:
        """Yield a function that gives the gradients of a task their buckets; it needs no other process."""
        yield lambda task: self._prepare_task(task, live)

    def _prepare_task(self, task: LightningModule, live: LiveTensorMode) -> TakeStep:
        buckets = _Buckets([value for value in task.parameters() if value.requires_grad], self)
        live.set_purpose("gradients" if self.bucket_view else "exchange_buffers", buckets.flat)

        def take_step(batch: object, number: int, is_last: bool) -> Any:
            # Gradients of passes before the last one are accumulated outside of the buckets.
            buckets.is_open = is_last
            return task.training_step(batch, number)

        return take_step


class _Buckets:
    """The buckets of a model's gradients: here one for all parameters with the same type of numbers.

    Args:
        parameters: those that need a gradient.
        replication: what becomes of a gradient.
    """

    def __init__(self, parameters: list[nn.Parameter], replication: Replication) -> None:
        self.is_open = False
        self.flat: list[Tensor] = []
        self._replication = replication
        self._views: dict[nn.Parameter, Tensor] = {}
        self._sent: list[Tensor] = []
        for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
            typed = [parameter for parameter in parameters if parameter.dtype == dtype]
            sizes = [parameter.numel() for parameter in typed]
            self.flat.append(torch.empty(sum(sizes), dtype=dtype))
            for parameter, piece in zip(typed, torch.split(self.flat[-1], sizes), strict=True):
                self._views[parameter] = piece.view(parameter.shape)
                hooked: Any = parameter
                hooked.register_post_accumulate_grad_hook(self._take_gradient)

    def _take_gradient(self, parameter: torch.nn.Parameter) -> None:
        if not self.is_open or parameter.grad is None:
            return
        view = self._views[parameter]
        view.copy_(parameter.grad)
        if self._replication.bucket_view:
            parameter.grad = view
        if self._replication.in_bf16:
            if not self._sent:
                # All of them may be under way until the backward pass ends, which waits for them.
                Variable._execution_engine.queue_callback(self._sent.clear)
            self._sent.append(view.to(torch.bfloat16))
