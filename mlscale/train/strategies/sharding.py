"""Sharding of a module over a mesh of processes by torch's `fully_shard`, and the check that it is sharded."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo  # as torch.compiler.disable, without the second that its import takes
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves, tree_map_only

from mlscale.errors import Exit, MLScaleError
from mlscale.report.text import format_percent
from mlscale.train.strategies.full_state import get_local, is_sharded
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

    Attributes:
        gathered: the modules that are gathered around their own forward pass, by name: the root, whose pass is a step;
            or, where a step optimizes manually, each module that it calls.
    """

    def __init__(self, task: pl.LightningModule) -> None:
        super().__init__()
        self.task, self.is_manual = task, not task.automatic_optimization
        self.gathered: dict[str, Any] = dict(list_called_modules(task)) if self.is_manual else {"": self}

    def forward(self, step: str, *args: object, **kwargs: object) -> Any:
        """Run the method `step` of the module."""
        try:
            return getattr(self.task, step)(*args, **kwargs)
        except RuntimeError as error:
            if explained := explain_sharded_use(error, self.task, is_manual=self.is_manual):
                raise explained from error
            raise


def shard_module(root: ShardedSteps, mesh: DeviceMesh, settings: ShardSettings, precision: str) -> None:
    """Shard the module in `root` in place: its parts that are gathered one at a time, then what is left of it.

    Raises:
        MLScaleError: a parameter has no dimension to shard, a class to wrap is not in the model, or a step that
            optimizes manually has a parameter that no forward pass would gather.
    """
    if root.is_manual:
        check_called_modules(root.task, root.gathered)
    for name, parameter in _list_parameters(root):
        if parameter.dim() == 0:
            raise _create_scalar_error(name)
        # `.data`: the parameter stays the same object. A shard is contiguous whatever the memory layout was.
        parameter.data = parameter.data.contiguous()
    wholes = list(root.gathered.values())
    inside = {id(part) for whole in wholes for part in whole.modules() if part is not whole}
    chosen = choose_modules(root.task, settings.wrap, settings.wrap_min_params)
    units = {name: part for name, part in chosen.items() if id(part) in inside}
    offload = CPUOffloadPolicy() if settings.cpu_offload and mesh.device_type == "cuda" else OffloadPolicy()
    mixed = full = MixedPrecisionPolicy()
    if precision == "bf16-mixed":
        mixed = MixedPrecisionPolicy(torch.bfloat16, _DTYPES[settings.reduce_dtype], cast_forward_inputs=False)
        # In float32 as under autocast, where they are normalised: one group for all of them, for they are small.
        for whole in wholes:
            if norms := [part for part in whole.modules() if part is not whole and _is_norm(part)]:
                fully_shard(norms, mesh=mesh, offload_policy=offload)
    # From the inside out: a module's group is what no module inside it has taken.
    for unit in reversed(list(units.values())):
        fully_shard(
            unit,
            mesh=mesh,
            reshard_after_forward=settings.reshard_after_forward or root.is_manual,
            mp_policy=mixed,
            offload_policy=offload,
        )
    for name, whole in root.gathered.items():
        fully_shard(
            whole,
            mesh=mesh,
            # A step that optimizes manually may update weights after any pass: none is gathered for longer than that.
            reshard_after_forward=True if root.is_manual else None,
            mp_policy=full if _is_norm(whole) else mixed,
            offload_policy=offload,
        )
        if root.is_manual:
            guard_backward(root.task, name, whole)
    if torch.distributed.get_rank() == 0:
        if root.is_manual and not settings.reshard_after_forward:
            print("strategy.reshard_after_forward has no effect with manual optimization", file=sys.stderr)
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
    if root.is_manual:
        parts = count_classes(units | root.gathered)
    share = format_percent(own / max(1, values), 1)
    return f"{values:,} parameters over {groups}, {share} on this one; gathered: {parts}"


def _create_scalar_error(name: str) -> MLScaleError:
    error = MLScaleError(
        f"strategy=fsdp can't shard the parameter {name}, which is a single number without a dimension",
        where="strategy",
        fix="strategy=ddp\nnn.Parameter(torch.ones(1)) in the model, in place of nn.Parameter(torch.tensor(1.0))",
    )
    error.unbuilt = True
    return error


_MIXED = "mixed torch.Tensor and DTensor"


def explain_sharded_use(error: RuntimeError, task: pl.LightningModule, *, is_manual: bool) -> MLScaleError | None:
    """Return the error that names whose weights a step has used outside of a forward pass; None where torch raised
    `error` for another reason.

    Args:
        is_manual: the step optimizes manually, so that its children are gathered and not the whole step.
    """
    if _MIXED not in str(error):
        return None
    return _explain_manual_use(error, task) if is_manual else _explain_use(error, task)


def _explain_use(error: RuntimeError, task: pl.LightningModule) -> MLScaleError:
    """Return the error for weights that a module around their own has used, such as those of an embedding as an output
    layer."""
    calls = list(_iterate_calls(error))
    user = calls[-1][1] if calls else task
    # Gathered ones are those whose forward pass is under way; the others may be what was used.
    units = {
        name: part for name, part in user.named_modules() if name and hasattr(part, "unshard") and is_sharded(part)
    }
    inner = [name for name in units if not any(other.startswith(f"{name}.") for other in units)]
    largest = max((sum(value.numel() for value in units[name].parameters()) for name in inner), default=0)
    names = " or ".join(inner[:3]) + (f", or {len(inner) - 3} more" if len(inner) > 3 else "")
    name = type(user).__name__.removeprefix("FSDP")
    refused = MLScaleError(
        f"strategy=fsdp can't train {type(task).__name__}: {name} uses weights outside of their module's forward pass",
        where="strategy.wrap, strategy.wrap_min_params",
        why=f"a module that is wrapped has its weights gathered while it computes, and not before or after: {names}",
        fix=f"strategy.wrap_min_params={largest + 1}, which leaves smaller ones to what is around them\n"
        "strategy.wrap=[<classes whose weights only they use>]\nstrategy=ddp",
    )
    refused.unbuilt = True
    return refused


def _explain_manual_use(error: RuntimeError, task: pl.LightningModule) -> MLScaleError:
    names = {id(module): name for name, module in task.named_modules()}
    for method, module in _iterate_calls(error):
        name, is_gathered = names.get(id(module)), isinstance(module, FSDPModule)
        if name and is_sharded(module) and not (is_gathered and method == "forward"):
            wrap = "" if is_gathered else f"strategy.wrap=[{type(module).__name__}]\n"
            register = f'torch.distributed.fsdp.register_fsdp_forward_method(self.{name}, "{method}")'
            fix = wrap if method == "forward" else f"{wrap}in on_fit_start: {register}\n"
            return create_manual_error(
                task,
                f"{name}.{method}, which it calls while the weights are not gathered",
                "with manual optimization, weights are gathered around the forward pass of each child",
                f"{fix}strategy=ddp",
            )
    return create_manual_error(task, "weights that it uses outside of the forward pass of a module", "", "strategy=ddp")


def _iterate_calls(error: BaseException) -> Iterator[tuple[str, nn.Module]]:
    """Yield the methods of modules that `error` passed through, outermost first, without torch's own around them."""
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and not frame.f_code.co_name.startswith("_"):
            yield frame.f_code.co_name, module


def list_called_modules(module: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """Return the children with parameters that a step calls, by name; of those that can't be called, such as a list,
    what is in them."""
    called: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        if type(child).forward is nn.Module.forward:
            called |= list_called_modules(child, f"{prefix}{name}.")
        elif any(True for _ in child.parameters()):
            called[prefix + name] = child
    return called


def check_called_modules(task: pl.LightningModule, called: Mapping[str, nn.Module]) -> None:
    """Raise an error unless every parameter is in exactly one of the modules that are called.

    Raises:
        MLScaleError: a parameter is in none of them, or in two.
    """
    places: dict[int, list[str]] = {}
    for path, module in called.items():
        for parameter in module.parameters():
            places.setdefault(id(parameter), []).append(path)
    for name, parameter in task.named_parameters():
        owners = places.get(id(parameter), [])
        if not owners:
            raise create_manual_error(
                task,
                f"{name}, which is not in a module with a forward pass",
                "with manual optimization, weights are gathered around the forward pass of each child",
                "strategy=ddp\nin the class: a child module that has the parameter, and uses it in its forward",
            )
        if len(owners) > 1:
            raise create_manual_error(
                task,
                f"{name}, which {' and '.join(owners)} share",
                "with manual optimization, each of them is gathered on its own",
                "strategy=ddp",
            )


def guard_backward(task: pl.LightningModule, name: str, module: nn.Module) -> None:
    """Check before each backward pass through `module` that the weights of its forward pass are there.

    Call when it is sharded: the hook comes after FSDP's.
    """

    shards = list(module.parameters())  # in a pass, the module has the gathered weights in their place

    def count_updates() -> int:
        return sum(shard._version for shard in shards)

    @_disable_dynamo
    def watch(module: nn.Module, inputs: object, output: object) -> None:
        updates = count_updates()

        def check(gradient: Tensor) -> None:
            # Gradients are recorded in a backward pass with `create_graph=True` alone.
            if torch.is_grad_enabled():
                raise create_double_backward_error(task, name)
            if count_updates() != updates:
                raise create_manual_error(
                    task,
                    f"{name}, which is updated between its forward and its backward pass",
                    "the backward pass would gather the new weights",
                    f"in training_step: {name}(…) again after the update, or the backward pass before it",
                )

        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(check)  # type: ignore[no-untyped-call]

    module.register_forward_hook(_copy_views, prepend=True)
    module.register_forward_hook(watch)


@_disable_dynamo
def _copy_views(module: nn.Module, inputs: object, output: object) -> object:
    """Return the output with copies of views: FSDP's hook on a view is lost when the view is changed in place."""
    return tree_map_only(Tensor, lambda value: value.clone() if value._base is not None else value, output)


def create_double_backward_error(task: pl.LightningModule, name: str) -> MLScaleError:
    """Return the error of a step that computes gradients of gradients, such as WGAN-GP's penalty."""
    return create_manual_error(
        task,
        f"{name}, whose gradients it differentiates again (create_graph=True)",
        "the first backward pass frees the gathered weights",
        "strategy=ddp",
    )


def create_manual_error(task: pl.LightningModule, what: str, why: str, fix: str) -> MLScaleError:
    """Return the error of a module whose manual steps can't be sharded, with what it does."""
    error = MLScaleError(
        f"strategy=fsdp can't train {type(task).__name__}, which optimizes manually, with {what}",
        where="strategy",
        why=why,
        fix=fix,
    )
    error.unbuilt = True
    return error
