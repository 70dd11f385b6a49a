"""Scratch memory inside of CPU kernels that no operation returns, so that counting what they return misses it.

oneDNN computes convolutions in a blocked layout: it makes copies of what it reads and writes. What is allocated when
was read from torch 2.13's profiler, call by call; scripts/bench_estimate.py compares whole models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten
_HALF = (torch.bfloat16, torch.float16)


def cpu_scratch(func: Any, args: tuple[Any, ...], result: Any) -> int:
    """Bytes that a CPU kernel holds at its worst beside its arguments and its results; 0 for those that need none."""
    if func is _aten.convolution.default:
        read, weight, written = _bytes(args[0]), _bytes(args[1]), _bytes(result)
        return weight + (read + written if args[0].dtype in _HALF else max(read, written))
    if func is _aten.convolution_backward.default:
        gradient, read, weight, wants_input = _bytes(args[0]), _bytes(args[1]), _bytes(args[2]), args[-1][0]
        return weight + read + (max(read, gradient) if wants_input else gradient)
    if func is _aten.native_batch_norm_backward.default:
        return _bytes(args[1])
    return 0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
