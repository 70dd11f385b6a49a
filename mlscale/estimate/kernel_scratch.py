"""Measure the scratch memory inside of CPU kernels, which no operation returns, so that counting results misses it.

A convolution copies its inputs and results into the layout of its kernel. The choice of the kernel, and what it
allocates, depends on the shape, the layout, the number format, the groups, the threads and the CPU; for depthwise
convolutions it is up to 80 times the input. So there is no rule here: each distinct convolution runs once, on a few
samples, and torch's own allocator reports the memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

_aten = torch.ops.aten
_MAX_SAMPLES = 24  # at most: from 16 on, kernels are those of larger batches, and scratch memory is affine in the batch
_MAX_MULTIPLICATIONS = 3e8  # of one call, at most: some hundredths of a second
_MAX_GROUPED_MULTIPLICATIONS = 2e7  # of one with groups, whose kernels are slow

# Operations of two tensors on a CPU convert one of another type, such as a mask, to the common one before they compute.
_PROMOTING = (_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor)
_SUMS = (_aten.sum.default, _aten.sum.dim_IntList)

Layout = tuple[torch.Size, tuple[int, ...], torch.dtype]


def estimate_cpu_scratch(func: object, args: tuple[Any, ...], result: object) -> int:
    """Return the largest number of bytes that a CPU kernel holds in addition to its arguments and its results.

    Args:
        func: the operation of aten.
        args: its arguments, real or fake tensors among them.
        result: what it returned.
    """
    if func is _aten.convolution.default:
        bias = None if args[2] is None else _get_layout(args[2])
        return _estimate_convolution_scratch(
            None, _get_layout(args[0]), _get_layout(args[1]), bias, _make_hashable(args[3:]), _get_num_threads()
        )
    if func is _aten.convolution_backward.default:
        gradient, read, weight = map(_get_layout, args[:3])
        return _estimate_convolution_scratch(gradient, read, weight, None, _make_hashable(args[3:]), _get_num_threads())
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


@cache
def _estimate_convolution_scratch(
    gradient: Layout | None,
    read: Layout,
    weight: Layout,
    bias: Layout | None,
    settings: tuple[Any, ...],
    threads: int,
) -> int:
    """Return the scratch memory of a convolution, or with a gradient of its backward pass, bytes.

    Measured on the whole batch where that is small, otherwise on two smaller ones, and extrapolated.

    Args:
        threads: number of threads that compute; the kernel depends on it.
    """

    def measure_samples(count: int) -> int:
        return _measure_convolution(gradient, read, weight, bias, settings, count)

    samples, most = read[0][0], _limit_probe_samples(read, weight, settings)
    if samples <= most:
        return measure_samples(samples)
    # Both sizes are near the limit: kernels of very small batches are others.
    few = max(1, 2 * most // 3)
    small, large = measure_samples(few), measure_samples(most)
    slope = (large - small) / (most - few)
    return max(0, round(large + slope * (samples - most)))


def _limit_probe_samples(read: Layout, weight: Layout, settings: tuple[Any, ...]) -> int:
    """Return the number of samples of a measurement: 2 to 24, whatever the size of the model."""
    # The last integer of the operation's settings is `groups`, forward and backward; a bool is not an integer here.
    groups = next(item for item in reversed(settings) if type(item) is int)
    multiplications = read[0][1:].numel() * weight[0][0] * weight[0][2:].numel() / groups
    limit = _MAX_MULTIPLICATIONS if groups == 1 else _MAX_GROUPED_MULTIPLICATIONS
    return int(min(_MAX_SAMPLES, max(2, limit // max(1.0, multiplications))))


def _measure_convolution(
    gradient: Layout | None,
    read: Layout,
    weight: Layout,
    bias: Layout | None,
    settings: tuple[Any, ...],
    samples: int,
) -> int:
    """Run a convolution once on `samples` of zeros, and return the memory that it held beyond its results, bytes."""
    plain = [list(item) if isinstance(item, tuple) else item for item in settings]
    # The caller is within a trace: without leaving it, this would run on fake tensors and cast once more.
    with unset_fake_temporarily(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        inputs, kernel = _create_zeros(read, samples), _create_zeros(weight)
        if gradient is None:
            added = None if bias is None else _create_zeros(bias)
            return measure_allocated_bytes(lambda: _aten.convolution.default(inputs, kernel, added, *plain))
        outgoing = _create_zeros(gradient, samples)
        return measure_allocated_bytes(lambda: _aten.convolution_backward.default(outgoing, inputs, kernel, *plain))


def measure_allocated_bytes(call: Callable[[], Any]) -> int:
    """Return the peak of the bytes that a call held from the CPU allocator, less those that its results keep."""
    with _record_allocations() as changes:
        result = call()
    held = peak = 0
    for change in changes:
        held += change
        peak = max(peak, held)
    # Kept until here: freed within the recording, the results would not count as held at its end.
    del result
    return peak - held


@contextlib.contextmanager
def _record_allocations() -> Iterator[list[int]]:
    """Collect the size of each allocation of this thread, bytes, negative where memory is freed.

    By torch's older profiler: the newer one writes to stderr each time it starts.
    """
    changes: list[int] = []
    profiler: Any = torch._C._profiler  # its stubs miss the older one
    with_memory = (False, True, False, False, False)
    config = profiler.ProfilerConfig(profiler.ProfilerState.CPU, *with_memory, profiler._ExperimentalConfig())
    autograd: Any = torch.autograd
    autograd._enable_profiler_legacy(config)
    try:
        yield changes
    finally:
        for thread in autograd._disable_profiler_legacy():
            changes += [event.cpu_memory_usage() for event in thread if event.kind() == "memory_alloc"]


def _create_zeros(layout: Layout, samples: int | None = None) -> Tensor:
    size, stride, dtype = layout
    return torch.empty_strided(size if samples is None else (samples, *size[1:]), stride, dtype=dtype).zero_()


def _get_num_threads() -> int:
    return torch.get_num_threads()


def _get_layout(tensor: Tensor) -> Layout:
    return tensor.shape, tensor.stride(), tensor.dtype


def _make_hashable(settings: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(item) if isinstance(item, list) else item for item in settings)


def _count_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
