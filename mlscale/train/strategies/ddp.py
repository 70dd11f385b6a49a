"""Strategies by which the processes of a run train together: factories behind the group `strategy`."""

from __future__ import annotations

from datetime import timedelta

import torch
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from mlscale.config.checks.bounds import create_single_process_error


def auto(
    world_size: int, timeout: float = 1800, find_unused_parameters: bool = False, gradient_as_bucket_view: bool = True
) -> Strategy | str:
    """Return the strategy for one process, or `ddp` for more; arguments as there."""
    return ddp(world_size, timeout, find_unused_parameters, gradient_as_bucket_view)


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
    world_size: int, timeout: float = 1800, find_unused_parameters: bool = False, gradient_as_bucket_view: bool = True
) -> Strategy | str:
    """Return DistributedDataParallel (Li et al. 2020): gloo between CPUs, NCCL between CUDA devices.

    Args:
        world_size: processes that train together; they run already, with torchrun's or SLURM's environment.
        timeout: seconds a collective waits for a missing rank.
        find_unused_parameters: search for parameters that a step did not use, which models that have some need.
        gradient_as_bucket_view: let gradients live in the buckets that are sent, which saves a copy of them.
    """
    if world_size == 1:
        return "auto"
    return SettledDDP(
        timeout=timedelta(seconds=timeout),
        find_unused_parameters=find_unused_parameters,
        gradient_as_bucket_view=gradient_as_bucket_view,
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


def has_stable_sum_order(strategy: Strategy, world_size: int) -> bool:
    """Return whether a process's first step adds up gradients in the same order as all others.

    With two ranks any order gives the same sum; more ranks need settled buckets, or those of `find_unused_parameters`.
    A third-party strategy other than DDP is assumed to do so.
    """
    if world_size <= 2 or not isinstance(strategy, DDPStrategy) or isinstance(strategy, SettledDDP):
        return True
    return bool(strategy._ddp_kwargs.get("find_unused_parameters"))


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
