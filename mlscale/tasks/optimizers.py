"""Construction of a task's optimizer and schedule, with groups of parameters where rules are set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mlscale.errors import MLScaleError
from mlscale.tasks.parameter_groups import SCALE, Rules, compute_group_rates, parameter_groups, scale_learning_rates

Partial = Callable[..., Any]
_LARGEST = ("max_lr", "base_lr")  # arguments of schedules that set rates themselves, in place of the groups' own


def build_optimizers(
    module: nn.Module,
    optimizer: Partial | None,
    scheduler: Partial | Mapping[str, Any] | None,
    rules: Rules = (),
    layer_decay: float = 1.0,
) -> Any:
    """Return the value of `configure_optimizers`: an optimizer, or Lightning's dictionary with its schedule.

    Args:
        module: whose parameters are trained.
        optimizer: called with the parameters, or with groups of them.
        scheduler: called with the optimizer, and stepped once per optimizer step, ReduceLROnPlateau after each epoch
            by val/loss; or Lightning's lr_scheduler dictionary with such a callable under "scheduler" and with
            "interval", "monitor" and the like.
        rules, layer_decay: as `parameter_groups` takes them.

    Raises:
        MLScaleError: the optimizer is None, or can't be built with these settings.
    """
    if optimizer is None:
        raise MLScaleError("the task has no optimizer", where="optimizer", fix="optimizer=adamw")
    made = _create_optimizer(module, optimizer, rules, layer_decay)
    if scheduler is None:
        return made
    if isinstance(scheduler, Mapping):
        config = dict(scheduler)
        return {"optimizer": made, "lr_scheduler": config | {"scheduler": _create_schedule(config["scheduler"], made)}}
    schedule = _create_schedule(scheduler, made)
    # The only schedule that looks at a metric, which a validation logs.
    is_plateau = isinstance(schedule, ReduceLROnPlateau)
    timing = {"interval": "epoch", "monitor": "val/loss"} if is_plateau else {"interval": "step"}
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, **timing}}


def _create_optimizer(module: nn.Module, optimizer: Partial, rules: Rules, layer_decay: float) -> Optimizer:
    plain = not rules and layer_decay == 1  # then state and checkpoints are the same as without groups
    groups: list[Any] = [] if plain else parameter_groups(module, rules, layer_decay)
    try:
        made: Optimizer = optimizer(groups or [p for p in module.parameters() if p.requires_grad])
    except (TypeError, ValueError) as error:  # torch checks settings that exclude each other
        if "only supports 2D" in str(error):
            raise _create_matrix_error(module) from error
        raise _create_refusal("optimizer", optimizer, error) from error
    if groups:
        # Before the schedule is made, which keeps the rates that it finds as its base.
        scale_learning_rates(made)
    return made


def _create_matrix_error(module: nn.Module) -> MLScaleError:
    """Return the error of torch's Muon for a model with other parameters than matrices."""
    others = [(name, value) for name, value in module.named_parameters() if value.requires_grad and value.dim() != 2]
    name, value = others[0]
    error = MLScaleError(
        f"torch.optim.Muon trains matrices alone, and {name} has the shape {tuple(value.shape)}",
        where="optimizer",
        why=f"it is the first of {len(others)} parameters of other shapes",
        fix="optimizer._target_=timm.optim.Muon, which trains the others by AdamW",
    )
    error.unbuilt = True
    return error


def _create_schedule(scheduler: Partial, optimizer: Optimizer) -> Any:
    """Return the schedule; one that sets the largest rate sets it for each group times the group's factor."""
    given = scheduler.keywords if isinstance(scheduler, partial) else {}
    grouped = any(SCALE in group for group in optimizer.param_groups)
    rates = {key: given[key] for key in _LARGEST if grouped and isinstance(given.get(key), int | float)}
    try:
        return scheduler(optimizer, **{key: compute_group_rates(optimizer, rate) for key, rate in rates.items()})
    except (TypeError, ValueError) as error:
        raise _create_refusal("scheduler", scheduler, error) from error


def _create_refusal(group: str, made: Partial, error: Exception) -> MLScaleError:
    """Return the error for settings that a class refuses, with the one whose value its message names."""
    given = made.keywords if isinstance(made, partial) else {}
    named = [key for key, value in given.items() if str(value) in str(error).split()]
    where = f"{group}.{named[0]}" if len(named) == 1 else group
    what = f"{where} is {given[named[0]]}" if len(named) == 1 else f"the {group} can't be built with these settings"
    fix = "mlscale config show origin=true prints where each setting comes from"
    refused = MLScaleError(what, where=where, why=str(error), fix=fix)
    refused.unbuilt = True
    return refused
