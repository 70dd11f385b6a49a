"""Strategies by which the processes of a run train together: factories behind the group `strategy`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import torch
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from mlscale.config.checks.bounds import create_single_process_error
from mlscale.train.strategies.bf16_reduction import reduce_in_bf16

GradientReduction = Literal["fp32", "bf16"]


def auto(
    world_size: int,
    timeout: float = 1800,
    find_unused_parameters: bool = False,
    gradient_as_bucket_view: bool = True,
    static_graph: bool = False,
    gradient_reduction: GradientReduction = "fp32",
) -> Strategy | str:
    """Return the strategy for one process, or `ddp` for more; arguments as there."""
    return ddp(world_size, timeout, find_unused_parameters, gradient_as_bucket_view, static_graph, gradient_reduction)


def single(world_size: int, timeout: float = 1800) -> str:
    """Return the strategy for one process on one device.

    Args:
        world_size: 1.
        timeout: has no effect; `debug=breakpoint` sets it for every strategy.

    Raises:
        MLScaleError: more than one process is requested.
    """
    if world_size > 1:
        raise create_single_process_error(world_size)
    return "auto"


def ddp(
    world_size: int,
    timeout: float = 1800,
    find_unused_parameters: bool = False,
    gradient_as_bucket_view: bool = True,
    static_graph: bool = False,
    gradient_reduction: GradientReduction = "fp32",
) -> Strategy | str:
    """Return DistributedDataParallel (Li et al. 2020): gloo between CPUs, NCCL between CUDA devices.

    Args:
        world_size: processes that train together; they run already, with torchrun's or SLURM's environment.
        timeout: seconds a collective waits for a missing rank.
        find_unused_parameters: search for parameters that a step did not use, which models that have some need.
        gradient_as_bucket_view: let gradients live in the buckets that are sent, which saves a copy of them.
        static_graph: every step uses the same parameters: those that the first one did not use are never waited for.
        gradient_reduction: precision in which gradients are added up over ranks; bf16 halves what is sent.
    """
    if world_size == 1:
        return "auto"
    # Only what is set: `has_stable_sum_order` reads it, and torch's DDP has its own default.
    more: dict[str, Any] = {"static_graph": True} if static_graph else {}
    return SettledDDP(
        timeout=timedelta(seconds=timeout),
        find_unused_parameters=find_unused_parameters,
        gradient_as_bucket_view=gradient_as_bucket_view,
        ddp_comm_hook=reduce_in_bf16 if gradient_reduction == "bf16" else None,
        **more,
    )


class SettledDDP(DDPStrategy):
    """Lightning's DDPStrategy, in which the first step of a process adds gradients up as every other step does.

    torch's DDP assigns gradients to buckets again after a process's first backward pass, in the order in which they
    arrived. From three ranks on, a ring adds a gradient's parts up in an order that follows from its position in the
    bucket, so the first step after a resume would differ in its last bits from the same step of an uninterrupted run.
    Here the buckets are settled before any step, in the reverse order of the parameters. It costs one exchange of
    gradients.
    """

    def configure_ddp(self) -> None:
        super().configure_ddp()
        # DDP has wrapped the model now, and no step has been taken.
        assert isinstance(self.model, DistributedDataParallel)
        settle_buckets(self.model)

    def _register_ddp_hooks(self) -> None:
        # Lightning registers a hook on CUDA alone, and leaves it out elsewhere without a message.
        if self._ddp_comm_hook is not None:
            assert isinstance(self.model, DistributedDataParallel)
            self.model.register_comm_hook(self._ddp_comm_state, self._ddp_comm_hook)


def has_stable_sum_order(strategy: Strategy, world_size: int) -> bool:
    """Return whether a process's first step adds up gradients in the same order as all others.

    With two ranks any order gives the same sum; more ranks need settled buckets, or those of `find_unused_parameters`.
    A third-party strategy other than DDP is assumed to do so.
    """
    if world_size <= 2 or not isinstance(strategy, DDPStrategy):
        return True
    if strategy._ddp_kwargs.get("static_graph"):
        # torch assigns the buckets again after the first step, and refuses a backward pass before it.
        return False
    return isinstance(strategy, SettledDDP) or bool(strategy._ddp_kwargs.get("find_unused_parameters"))


def settle_buckets(ddp: DistributedDataParallel) -> None:
    """Put the buckets of a DistributedDataParallel in their final order now, by a backward pass of zeros.

    Models with `find_unused_parameters` or sparse gradients keep their initial buckets.
    """
    parameters = [parameter for parameter in ddp.parameters() if parameter.requires_grad]
    if ddp.find_unused_parameters or ddp.static_graph or any(getattr(part, "sparse", False) for part in ddp.modules()):
        return
    ddp.reducer.prepare_for_backward([])
    # One element of each parameter is enough for its gradient to arrive; times 0, it carries no value.
    torch.autograd.backward([parameter.flatten()[:1].sum().float() * 0 for parameter in parameters])
    ddp.reducer._rebuild_buckets()
    for parameter in parameters:
        # As before: the first step must not find gradients of zeros.
        parameter.grad = None
