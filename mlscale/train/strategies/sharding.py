"""Sharding of a module over a mesh of processes by torch's `fully_shard`, and the check that it is sharded."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.modules.batchnorm import _NormBase

from mlscale.errors import Exit, MLScaleError
from mlscale.report.text import format_percent
from mlscale.train.strategies.full_state import get_local
from mlscale.train.strategies.wrapping import choose_modules, count_classes

if TYPE_CHECKING:
    import pytorch_lightning as pl

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ShardSettings:
    """The settings by which a model is sharded; see `fsdp` for what each means."""

    wrap: tuple[str, ...] = ()
    wrap_min_params: int | None = None
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    reshard_after_forward: bool = True
    cpu_offload: bool = False


class ShardedSteps(nn.Module):
    """The root of a sharded module, whose forward pass is a whole step of it.

    The module itself has no hooks: its steps may call its `forward`, which would free the weights in their middle.

    Args:
        task: the LightningModule.
    """

    def __init__(self, task: pl.LightningModule) -> None:
        super().__init__()
        self.task = task

    def forward(self, step: str, *args: object, **kwargs: object) -> Any:
        """Run the method `step` of the module."""
        try:
            return getattr(self.task, step)(*args, **kwargs)
        except RuntimeError as error:
            if explained := explain_sharded_use(error, self.task):
                raise explained from error
            raise


def shard_module(root: ShardedSteps, mesh: DeviceMesh, settings: ShardSettings, precision: str) -> None:
    """Shard the module in `root` in place: its parts that are gathered one at a time, then what is left of it.

    Raises:
        MLScaleError: a step optimizes manually, a parameter has no dimension to shard, or a class to wrap is not in the
            model.
    """
    if not root.task.automatic_optimization:
        raise _create_manual_error(root.task)
    for name, parameter in _list_parameters(root):
        if parameter.dim() == 0:
            raise _create_scalar_error(name)
        # `.data`: the parameter stays the same object. A shard is contiguous whatever the memory layout was.
        parameter.data = parameter.data.contiguous()
    units = choose_modules(root.task, settings.wrap, settings.wrap_min_params)
    offload = CPUOffloadPolicy() if settings.cpu_offload and mesh.device_type == "cuda" else OffloadPolicy()
    mixed = MixedPrecisionPolicy()
    if precision == "bf16-mixed":
        mixed = MixedPrecisionPolicy(torch.bfloat16, _DTYPES[settings.reduce_dtype], cast_forward_inputs=False)
        # In float32 as under autocast, where they are normalised: one group for all of them, for they are small.
        if norms := [part for part in root.modules() if _is_norm(part)]:
            fully_shard(norms, mesh=mesh, offload_policy=offload)
    # From the inside out: a module's group is what no module inside it has taken.
    for unit in reversed(list(units.values())):
        fully_shard(
            unit,
            mesh=mesh,
            reshard_after_forward=settings.reshard_after_forward,
            mp_policy=mixed,
            offload_policy=offload,
        )
    fully_shard(root, mesh=mesh, reshard_after_forward=None, mp_policy=mixed, offload_policy=offload)
    if torch.distributed.get_rank() == 0:
        print(f"fsdp      {_describe_shards(root, mesh, units)}", file=sys.stderr, flush=True)


def assert_sharded(module: nn.Module, mesh: DeviceMesh) -> None:
    """Raise an error unless every parameter is sharded over the mesh: a call that shards nothing gives no error.

    Raises:
        MLScaleError: a parameter is whole on this rank, or its shard is larger than its part.
    """
    size = mesh["shard"].size() if mesh.ndim > 1 else mesh.size()
    for name, parameter in _list_parameters(module):
        is_sharded = isinstance(parameter, DTensor) and any(isinstance(p, Shard) for p in parameter.placements)
        if not is_sharded or get_local(parameter).numel() > count_shard_values(parameter.shape, size):
            raise MLScaleError(
                f"the parameter {name} is not sharded over {size} processes",
                where="strategy",
                why="strategy=fsdp would train as if it were, with the memory of a whole model",
                fix="strategy=ddp",
                exit=Exit.BUG,
            )


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) and any(True for _ in module.parameters())


def _list_parameters(root: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the parameters under their names in checkpoints: without that of the root's only child."""
    return [(name.removeprefix("task."), parameter) for name, parameter in root.named_parameters()]


def count_shard_values(shape: torch.Size | tuple[int, ...], ranks: int) -> int:
    """Return the values of the largest shard of a parameter: the first dimension is cut into equal parts, rounded
    up."""
    return math.ceil(shape[0] / ranks) * math.prod(shape[1:])


def _describe_shards(root: ShardedSteps, mesh: DeviceMesh, units: dict[str, nn.Module]) -> str:
    values = sum(parameter.numel() for parameter in root.parameters())
    own = sum(get_local(parameter).numel() for parameter in root.parameters())
    groups = f"{mesh.size(0)} groups of {mesh.size(1)} ranks" if mesh.ndim > 1 else f"{mesh.size()} ranks"
    parts = f"{count_classes(units)} and the rest" if units else "the whole model at once"
    share = format_percent(own / max(1, values), 1)
    return f"{values:,} parameters over {groups}, {share} on this one; gathered: {parts}"


def _create_manual_error(task: pl.LightningModule) -> MLScaleError:
    error = MLScaleError(
        f"strategy=fsdp can't train {type(task).__name__}, which optimizes manually",
        where="strategy, automatic_optimization",
        why="a whole step has its weights gathered once, and would not see those that it updates itself",
        fix="strategy=ddp",
    )
    error.unbuilt = True
    return error


def _create_scalar_error(name: str) -> MLScaleError:
    error = MLScaleError(
        f"strategy=fsdp can't shard the parameter {name}, which is a single number without a dimension",
        where="strategy",
        fix="strategy=ddp\nnn.Parameter(torch.ones(1)) in the model, in place of nn.Parameter(torch.tensor(1.0))",
    )
    error.unbuilt = True
    return error


_MIXED = "mixed torch.Tensor and DTensor"


def explain_sharded_use(error: RuntimeError, task: pl.LightningModule) -> MLScaleError | None:
    """Return the error of a step that uses weights outside of their module's forward pass, such as an embedding's as an
    output layer; None where torch raised `error` for another reason."""
    if _MIXED not in str(error):
        return None
    refused = MLScaleError(
        f"strategy=fsdp can't train {type(task).__name__}: it uses weights outside of their module's forward pass",
        where="strategy.wrap, strategy.wrap_min_params",
        why="a module that is wrapped has its weights gathered while it computes, and not before or after",
        fix="strategy.wrap=[<classes whose weights only they use>]\nstrategy=ddp",
    )
    refused.unbuilt = True
    return refused
