"""Buffers that differ between ranks, as BatchNorm's running means do: a checkpoint's weights are the first rank's.

DDP overwrites the others' with them before each forward pass; until then, and with `broadcast_buffers=False` always,
each rank has its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mlscale.train.checkpoint import tensor_digests as digests


def collect_own_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return this rank's buffers that differ from the first rank's, by name, on the CPU. A collective."""
    buffers = dict(module.named_buffers())
    # Digests are compared in place of buffers: 16 characters for each travel between ranks, whatever its size.
    own_digests = {name: digests.hash_tensor(value) for name, value in buffers.items()}
    first = [own_digests]
    dist.broadcast_object_list(first)
    return {
        name: buffers[name].detach().cpu().clone() for name in own_digests if own_digests[name] != first[0].get(name)
    }


@torch.no_grad()
def restore_buffers(saved: Mapping[str, Tensor], module: nn.Module) -> None:
    """Copy saved buffers back into `module`; names that it lacks are skipped."""
    buffers = dict(module.named_buffers())
    for name in saved.keys() & buffers.keys():
        buffers[name].copy_(saved[name])
