"""Sharded tensors to full ones and back: all that a checkpoint of one file needs of FSDP.

A checkpoint is collected on every rank with the shards in it, as DTensors, in the form that it has without FSDP: names
of weights, numbers of parameters in the optimizer's state. `gather_tensors` makes it full on the first rank; what saves
shards takes it as it is. In the other direction `shard_like` cuts full tensors to the shards of those that exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def gather_tensors(tree: object, *, keep: bool) -> Any:
    """Return a copy of `tree` with full tensors on the CPU in place of sharded ones. A collective.

    Args:
        tree: dictionaries, lists and tuples with values of any kind, the same on all ranks but for the shards.
        keep: whether this rank needs the result; others get None in place of sharded tensors.
    """
    if isinstance(tree, DTensor):
        # One at a time: no device ever holds more than one full tensor.
        full: Tensor = tree.full_tensor().detach()
        return full.cpu() if keep else None
    if isinstance(tree, Mapping):
        return _copy_mapping(tree, {key: gather_tensors(value, keep=keep) for key, value in tree.items()})
    if isinstance(tree, list):
        return [gather_tensors(value, keep=keep) for value in tree]
    if type(tree) is tuple:
        return tuple(gather_tensors(value, keep=keep) for value in tree)
    return tree


def shard_like(full: object, own: object) -> Any:
    """Return `full` with its tensors cut as those at the same place in `own`, which are DTensors; others as they are.

    Every rank has the full tensors, so nothing is sent.
    """
    if isinstance(own, DTensor) and isinstance(full, Tensor) and not isinstance(full, DTensor):
        if full.shape != own.shape:
            # The caller's `load_state_dict` names the weight and both shapes.
            return full
        # src_data_rank=None: each rank cuts its own shard out of its own copy.
        value = full.to(own.device)
        return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
    if isinstance(full, Mapping) and isinstance(own, Mapping):
        return _copy_mapping(full, {key: shard_like(value, own.get(key)) for key, value in full.items()})
    return full


def shard_optimizer_state(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer's full state with every tensor that has its parameter's shape cut as the parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    # torch's form: parameters are numbered over the groups, in their order.
    of_number = dict(zip(numbers, parameters, strict=False))

    def shard_entry(number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        parameter = of_number.get(number)
        return {
            name: shard_like(value, parameter) if _has_shape(value, parameter) else value
            for name, value in entry.items()
        }

    return {**state, "state": {number: shard_entry(number, entry) for number, entry in state["state"].items()}}


def get_local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _has_shape(value: object, parameter: Tensor | None) -> bool:
    return isinstance(value, torch.Tensor) and parameter is not None and value.shape == parameter.shape


def _copy_mapping(before: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Return `items` in the class of `before`, with the versions of formats that a module's state carries."""
    copy: Any = type(before)(items) if isinstance(before, dict) else items
    if (metadata := getattr(before, "_metadata", None)) is not None:
        copy._metadata = metadata
    return copy
