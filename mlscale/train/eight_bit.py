"""AdamW with its state in 8 bits, of the library bitsandbytes: a factory behind the group `optimizer`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from mlscale.errors import MLScaleError
from mlscale.export.required_extras import require_extra


def adamw_8bit(
    params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    betas: Sequence[float] = (0.9, 0.999),
    min_8bit_size: int = 4096,
    paged: bool = False,
) -> torch.optim.Optimizer:
    """Return AdamW whose two moments take one byte for each parameter, not four (Dettmers et al. 2022, "8-bit
    Optimizers via Block-wise Quantization").

    Args:
        params: parameters, or groups of them; of any float dtype, on CPU or CUDA.
        lr, weight_decay, betas: as those of `torch.optim.AdamW`.
        min_8bit_size: parameters with fewer elements have moments of 32 bits.
        paged: let the state move to host memory while a CUDA device is full (CUDA's unified memory).

    Raises:
        MLScaleError: bitsandbytes is not installed (exit code 5); the parameters are sharded, which it can't compute
            with; or `paged` is set, and they are not on a CUDA device.
    """
    groups: list[Any] = list(params)
    tensors: list[torch.Tensor] = [tensor for group in groups for tensor in _list_parameters(group)]
    _refuse_unsupported(tensors, paged)
    require_extra("bitsandbytes", "bitsandbytes")
    # On import it reports kernels for 4 bits that are not there; no optimizer uses them.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    build = PagedAdamW8bit if paged else AdamW8bit
    made: torch.optim.Optimizer = build(
        groups, lr=lr, betas=tuple(betas), weight_decay=weight_decay, min_8bit_size=min_8bit_size
    )
    return made


def _list_parameters(group: Any) -> list[torch.Tensor]:
    return list(group["params"]) if isinstance(group, dict) else [group]


def _refuse_unsupported(tensors: Sequence[torch.Tensor], paged: bool) -> None:
    from torch.distributed.tensor import DTensor

    if any(isinstance(tensor, DTensor) for tensor in tensors):
        raise MLScaleError(
            "bitsandbytes can't compute with sharded parameters",
            where="optimizer: adamw_8bit",
            why="strategy=fsdp divides the optimizer's state over the processes, in 32 bits",
            fix="optimizer=adamw\nstrategy=ddp",
        )
    if paged and not all(tensor.is_cuda for tensor in tensors):
        raise MLScaleError(
            "the optimizer's state can't be paged here",
            where="optimizer.paged",
            why="it takes the unified memory of a CUDA device, and the parameters are on the CPU",
            fix="optimizer.paged=false",
        )
