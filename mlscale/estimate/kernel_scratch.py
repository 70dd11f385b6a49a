"""Compute the scratch memory inside of CPU kernels, which no operation returns, so that counting results misses it.

That of convolutions depends on the kernel that the CPU chooses, and is not computed: real steps show it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten

# Operations of two tensors on a CPU convert one of another type, such as a mask, to the common one before they compute.
_PROMOTING = (_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor)
_SUMS = (_aten.sum.default, _aten.sum.dim_IntList)


def estimate_cpu_scratch(func: object, args: tuple[Any, ...], result: object) -> int:
    """Return the largest number of bytes that a CPU kernel holds in addition to its arguments and its results.

    Args:
        func: the operation of aten.
        args: its arguments, real or fake tensors among them.
        result: what it returned.
    """
    if func in _PROMOTING:
        return _count_promoted_bytes(args)
    # A sum in another type, such as of booleans in integers, converts its whole input first.
    if func in _SUMS and args[0].dtype != result.dtype:  # type: ignore[attr-defined]
        return int(args[0].numel() * result.element_size())  # type: ignore[attr-defined]
    # gloo copies what it receives in an all-gather, and what it sends in a reduce-scatter.
    if func is torch.ops.c10d._allgather_base_.default:
        return _count_bytes(args[0])
    if func is torch.ops.c10d._reduce_scatter_base_.default:
        return _count_bytes(args[1])
    # One buffer of the size of its second argument, the input.
    if func is _aten.native_batch_norm_backward.default:
        return _count_bytes(args[1])
    return 0


def _count_promoted_bytes(args: tuple[Any, ...]) -> int:
    """Return the bytes of the copies that convert tensors to the type in which both are computed."""
    tensors = [value for value in args[:2] if isinstance(value, Tensor)]
    if len(tensors) < 2 or tensors[0].dtype == tensors[1].dtype:
        return 0
    common = torch.result_type(*tensors)
    return sum(value.numel() * common.itemsize for value in tensors if value.dtype != common)


def _count_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
