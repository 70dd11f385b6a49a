"""A checkpoint that the first rank reads: the others get what is small with it, and of sharded tensors their part.

On the other ranks a tensor without storage, on torch's `meta` device, stands for each tensor that is sent when it is
sharded. So no rank but the first needs memory for the whole state, and the file is read and verified once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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
