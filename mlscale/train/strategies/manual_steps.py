"""Steps that optimize manually under FSDP: each module that they call is gathered on its own, around its passes.

A step with several backward passes and updates can't be one forward pass of one root, whose weights would stay as
they were before its first update. What this does not support is refused, and never computed with other weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo  # as torch.compiler.disable, without the second that its import takes
from torch.utils._pytree import tree_leaves, tree_map_only

from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    import pytorch_lightning as pl


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
