"""How the processes of a run work together: factories behind the group `strategy`."""

from datetime import timedelta

from pytorch_lightning.strategies import DDPStrategy, Strategy

from mlscale.errors import MLScaleError


def auto(
    world_size: int, timeout: float = 1800, find_unused_parameters: bool = False, gradient_as_bucket_view: bool = True
) -> Strategy | str:
    """One process for one device, `ddp` for more; arguments as there."""
    return ddp(world_size, timeout, find_unused_parameters, gradient_as_bucket_view)


def single(world_size: int) -> str:
    """One process on one device.

    Raises:
        MLScaleError: more than one process is asked for.
    """
    if world_size > 1:
        raise MLScaleError(
            f"strategy=single runs one process, and {world_size} are asked for",
            where="strategy, trainer.devices, trainer.num_nodes",
            fix="trainer.devices=1, or strategy=ddp",
        )
    return "auto"


def ddp(
    world_size: int, timeout: float = 1800, find_unused_parameters: bool = False, gradient_as_bucket_view: bool = True
) -> Strategy | str:
    """DistributedDataParallel (Li et al. 2020): gloo between CPUs, NCCL between CUDA devices.

    Args:
        world_size: processes that train together; they are there already, with torchrun's or SLURM's environment.
        timeout: seconds a collective waits for a missing rank.
        find_unused_parameters: look for parameters that a step did not use; needed by models that have such.
        gradient_as_bucket_view: let gradients live in the buckets that are sent, which saves a copy of them.
    """
    if world_size == 1:
        return "auto"
    return DDPStrategy(
        timeout=timedelta(seconds=timeout),
        find_unused_parameters=find_unused_parameters,
        gradient_as_bucket_view=gradient_as_bucket_view,
    )
