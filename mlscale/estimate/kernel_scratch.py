"""Compute the scratch memory of collectives on a CPU, which no operation returns, so that counting results misses it.

That of other kernels is not computed: real steps show it.
"""

from __future__ import annotations

from typing import Any

import torch


def count_gloo_copies(func: object, args: tuple[Any, ...], result: object) -> int:
    """Return the bytes that gloo copies: what it receives in an all-gather, and what it sends in a reduce-scatter.

    Args:
        func: the operation.
        args: its arguments, real or fake tensors among them.
        result: what it returned.
    """
    if func is torch.ops.c10d._allgather_base_.default:
        return int(args[0].nbytes)
    return int(args[1].nbytes) if func is torch.ops.c10d._reduce_scatter_base_.default else 0
