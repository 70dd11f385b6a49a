"""Split a checkpoint of sharded training into what is sharded and what is not, and join the two again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

_MARK = "mlscale: sharded"  # the key of a dictionary that is in the state in place of a sharded tensor


@dataclass(frozen=True)
class ShardPlacement:
    """The place of a rank's part of a tensor.

    Attributes:
        offsets: where it begins in the tensor.
        size: of the tensor.
    """

    offsets: tuple[int, ...]
    size: tuple[int, ...]


def split_state(
    checkpoint: Mapping[str, object],
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, ShardPlacement]]:
    """Return the checkpoint with a mark in place of each sharded tensor; and this rank's parts of these, and where they
    belong, by their names, such as `state_dict/model.weight`. Of replicas, the first one's rank has the parts."""
    parts: dict[str, Tensor] = {}
    shards: dict[str, ShardPlacement] = {}

    def replace_tensor(tensor: object, name: str) -> object:
        if not isinstance(tensor, DTensor):
            return tensor
        if (shard := _locate_own_shard(tensor)) is not None:
            parts[name], shards[name] = tensor.to_local().detach(), shard
        return {_MARK: name}

    return _replace_leaves(checkpoint, replace_tensor), parts, shards


def join_state(state: object, tensors: Mapping[str, Tensor]) -> Any:
    """Return a state with the tensors in place of their marks.

    Raises:
        KeyError: a tensor is missing.
    """
    return _replace_leaves(state, lambda value, _: tensors[value[_MARK]] if _is_mark(value) else value)  # type: ignore[index]  # a mark is a dictionary


def find_marks(state: object) -> set[str]:
    """Return the names of the sharded tensors of a state."""
    names = set()

    def note_mark(value: object, _: str) -> object:
        if isinstance(value, Mapping) and _is_mark(value):
            names.add(value[_MARK])
        return value

    _replace_leaves(state, note_mark)
    return names


def _locate_own_shard(tensor: DTensor) -> ShardPlacement | None:
    mesh, placements = tensor.device_mesh, tensor.placements
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        return None
    if any(isinstance(kind, Replicate) and index for kind, index in zip(placements, coordinate, strict=True)):
        return None
    size, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, placements)
    if 0 in size:  # a tensor with fewer rows than there are ranks
        return None
    return ShardPlacement(tuple(offsets), tuple(tensor.shape))


def _is_mark(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {_MARK}


def _replace_leaves(tree: object, replace: Callable[[object, str], object], name: str = "") -> Any:
    """Return a copy of `tree` with each leaf replaced; a mark is a leaf."""
    prefix = f"{name}/" if name else ""
    if isinstance(tree, dict) and not _is_mark(tree):
        items = {key: _replace_leaves(value, replace, f"{prefix}{key}") for key, value in tree.items()}
        copy: Any = type(tree)(items)
        if (metadata := getattr(tree, "_metadata", None)) is not None:
            # Versions of modules, which a state_dict carries in an attribute.
            copy._metadata = metadata
        return copy
    if type(tree) in (list, tuple):
        assert isinstance(tree, list | tuple)
        return type(tree)(_replace_leaves(value, replace, f"{prefix}{index}") for index, value in enumerate(tree))
    return replace(tree, name)


def count_bytes(size: torch.Size, dtype: torch.dtype) -> int:
    """Return the bytes of a tensor."""
    return size.numel() * dtype.itemsize
