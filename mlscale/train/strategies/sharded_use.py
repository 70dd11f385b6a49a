"""Explain torch's error of a step that uses sharded weights while they are not gathered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn
from torch.distributed.fsdp import FSDPModule

from mlscale.errors import MLScaleError
from mlscale.train.strategies.full_state import is_sharded
from mlscale.train.strategies.manual_steps import create_manual_error

if TYPE_CHECKING:
    import pytorch_lightning as pl

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
