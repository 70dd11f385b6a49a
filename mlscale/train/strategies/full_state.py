"""Sharded tensors to full ones and back: all that a checkpoint of one file needs of FSDP.

A checkpoint is collected on every rank with the shards in it, as DTensors, in the form that it has without FSDP: names
of weights, numbers of parameters in the optimizer's state. `gather_tensors` makes it full on the first rank; what saves
shards takes it as it is. In the other direction `shard_like` cuts full tensors to the shards of those that exist.

A checkpoint that the first rank reads: the others get what is small with it, and of sharded tensors their part.

On the other ranks a tensor without storage, on torch's `meta` device, stands for each tensor that is sent when it is
sharded. So no rank but the first needs memory for the whole state, and the file is read and verified once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
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
    """Return `full` with its tensors cut as those at the same place in `own`, which are DTensors; others as they are. A
    collective: the first rank has the full tensors, and sends each rank its part; others may have placeholders."""
    if isinstance(own, DTensor) and isinstance(full, Tensor) and not isinstance(full, DTensor):
        if full.shape != own.shape:
            # The caller's `load_state_dict` names the weight and both shapes.
            return full
        # One at a time: no rank but the first ever holds more than one full tensor.
        value = provide_storage(full, own.device)
        return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=0)
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
            name: shard_like(value, parameter) if _has_shape(value, parameter) else _receive(value, parameter)
            for name, value in entry.items()
        }

    return {**state, "state": {number: shard_entry(number, entry) for number, entry in state["state"].items()}}


class TensorTree(nn.Module):
    """A copy of a module's parameters and buffers under the same names, sharded as they are, that computes nothing.

    Args:
        module: what is copied.
    """

    def __init__(self, module: nn.Module, _copies: dict[int, Any] | None = None) -> None:
        super().__init__()
        # By identity: what is shared inside the module is shared inside the copy.
        copies = {} if _copies is None else _copies
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in copies:
                copies[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            self.register_parameter(name, copies.get(id(parameter)))
        for name, buffer in module._buffers.items():
            is_saved = name not in module._non_persistent_buffers_set
            self.register_buffer(name, None if buffer is None else buffer.detach().clone(), persistent=is_saved)
        for name, part in module._modules.items():
            if part is not None and id(part) not in copies:
                copies[id(part)] = TensorTree(part, copies)
            self.add_module(name, copies.get(id(part)))

    def __deepcopy__(self, memo: object) -> TensorTree:
        """Return this tree itself: it is a copy."""
        return self


def get_local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(module: nn.Module) -> bool:
    """Return whether parameters of `module` are sharded."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def compute_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the L2 norm of each tensor, float32; of whole tensors where they are sharded, then it is a collective."""
    norms = [norm.float() for norm in torch._foreach_norm([get_local(t) for t in tensors], 2, dtype=torch.float32)]
    meshes = {tensor.device_mesh for tensor in tensors if isinstance(tensor, DTensor)}
    for mesh in meshes:
        own = [index for index, tensor in enumerate(tensors) if getattr(tensor, "device_mesh", None) == mesh]
        # Together: one exchange for all tensors, and not one for each.
        squares = torch.stack([norms[index] for index in own]).square()
        dist.all_reduce(squares, group=mesh.get_group("shard"))
        for index, norm in zip(own, squares.sqrt().unbind(), strict=True):
            norms[index] = norm
    return norms


def _receive(value: object, parameter: Tensor | None) -> Any:
    device = torch.device("cpu") if parameter is None else parameter.device
    return receive_whole(value, device) if isinstance(value, Tensor) and is_sent_later(value) else value


def _has_shape(value: object, parameter: Tensor | None) -> bool:
    return isinstance(value, torch.Tensor) and parameter is not None and value.shape == parameter.shape


def _copy_mapping(before: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Return `items` in the class of `before`, with the versions of formats that a module's state carries."""
    copy: Any = type(before)(items) if isinstance(before, dict) else items
    if (metadata := getattr(before, "_metadata", None)) is not None:
        copy._metadata = metadata
    return copy


def read_on_first_rank(read: Callable[[], dict[str, Any]], parameters: Collection[str]) -> dict[str, Any]:
    """Return a checkpoint: on the first rank as it is, on others with placeholders for large tensors. A collective.

    Args:
        read: reads it; the first rank alone calls it.
        parameters: names of the model's parameters.

    Raises:
        Exception: what `read` has raised, on all ranks.
    """
    content: dict[str, Any] | None = None
    shared: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            content = read()
            shared[0] = _replace_large(content, parameters)
        except Exception as error:
            shared[1] = error
    dist.broadcast_object_list(shared, src=0)
    if shared[1] is not None:
        raise shared[1]
    result: dict[str, Any] = shared[0] if content is None else content
    return result


def is_placeholder(value: object) -> bool:
    """Return whether a value stands for a tensor that the first rank has."""
    return isinstance(value, Tensor) and value.device.type == "meta"


def is_sent_later(value: object) -> bool:
    """Return whether a value in an optimizer's state is sent when the state is loaded: the same on all ranks."""
    return isinstance(value, Tensor) and value.dim() > 0


def provide_storage(value: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device; of a placeholder, one of its shape with any values."""
    return torch.empty_like(value, device=device) if is_placeholder(value) else value.to(device)


def receive_whole(value: Tensor, device: torch.device) -> Tensor:
    """Return the first rank's tensor on the CPU. A collective; one tensor at a time is on the device."""
    moved = provide_storage(value, device).contiguous()
    dist.broadcast(moved, src=0)
    return moved.to("cpu")


def _replace_large(content: Mapping[str, Any], parameters: Collection[str]) -> dict[str, Any]:
    """Return a copy with placeholders for parameters and for the tensors of optimizers."""
    shown = dict(content)
    if isinstance(weights := content.get("state_dict"), Mapping):
        shown["state_dict"] = _copy_with(weights, lambda name, _: name in parameters)
    if isinstance(states := content.get("optimizer_states"), list):
        shown["optimizer_states"] = [
            {**state, "state": {n: _copy_with(entry, lambda _, value: is_sent_later(value)) for n, entry in of.items()}}
            if isinstance(of := state.get("state"), Mapping)
            else state
            for state in states
        ]
    return shown


def _copy_with(values: object, is_replaced: Callable[[str, object], bool]) -> Any:
    if not isinstance(values, dict):
        return values
    copy: Any = type(values)(
        (name, value.to("meta") if isinstance(value, Tensor) and is_replaced(name, value) else value)
        for name, value in values.items()
    )
    if (metadata := getattr(values, "_metadata", None)) is not None:  # the versions of the modules' formats
        copy._metadata = metadata
    return copy
