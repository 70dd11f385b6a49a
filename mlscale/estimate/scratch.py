"""Scratch memory inside of CPU kernels that no operation returns, so that counting what they return misses it.

oneDNN computes convolutions in a blocked layout: it makes copies of what it reads and writes. Where it does not know a
number format (bfloat16 without AVX-512, float16 without AMX), torch unfolds the images instead. What is allocated when
was read from torch 2.13's profiler, call by call, on machines with and without AMX; scripts/bench_estimate.py compares
whole models.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from mlscale.runs import machine

_aten = torch.ops.aten
_HALF = (torch.bfloat16, torch.float16)


def cpu_scratch(func: Any, args: tuple[Any, ...], result: Any) -> int:
    """Bytes that a CPU kernel holds at its worst beside its arguments and its results; 0 for those that need none."""
    if func is _aten.convolution.default:
        read, weight, written = _bytes(args[0]), _bytes(args[1]), _bytes(result)
        if not _onednn(args[0].dtype):
            return _unfolded(args[1], result)
        return weight + (read + written if _keeps_both(args[0].dtype) else max(read, written))
    if func is _aten.convolution_backward.default:
        gradient, read, weight, wants_input = _bytes(args[0]), _bytes(args[1]), _bytes(args[2]), args[-1][0]
        if not _onednn(args[1].dtype):
            return _unfolded(args[2], args[0])
        return weight + read + (max(read, gradient) if wants_input else gradient)
    if func is _aten.native_batch_norm_backward.default:
        return _bytes(args[1])
    return 0


def _onednn(dtype: torch.dtype) -> bool:
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype != torch.float16 or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


@cache
def _keeps_both(dtype: torch.dtype) -> bool:
    """AMX's kernels hold the copy of what was read until that of what is written is there."""
    return dtype in _HALF and "amx_tile" in machine.cpu_flags()


def _unfolded(weight: Tensor, written: Tensor) -> int:
    """Of each pixel that is written, all that it is computed from."""
    each = weight[0].numel()
    return each * (written.numel() // weight.shape[0]) * written.element_size()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
