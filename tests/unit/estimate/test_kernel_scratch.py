"""What CPU kernels take while they compute, against the allocator, call by call."""

import platform
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from mlscale.estimate.kernel_scratch import _estimate_convolution_scratch, estimate_cpu_scratch
from mlscale.estimate.live_tensors import LiveTensorMode

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="torch's newer profiler is compared with on x86-64 alone",
)


def allocated(call: Callable[[], Any]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total: int = 0
    peak: int = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    del kept
    return int(peak)


def counted(call: Callable[[], Any]) -> int:
    with LiveTensorMode(estimate_cpu_scratch) as live:
        kept = call()
    del kept
    return int(live.peak)


FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Another number of threads means other kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "groups", "batch"),
    [
        (32, 64, 3, 2, 1, 12),
        (64, 32, 1, 1, 1, 48),  # more samples than are measured
        (3, 24, 7, 2, 1, 16),  # most of the scratch memory does not depend on the batch
        (96, 96, 7, 1, 96, 16),  # the depthwise one of ConvNeXt
        (48, 48, 3, 2, 48, 40),
        (32, 64, 5, 1, 8, 24),
    ],
)
def test_convolutions(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, batch: int, dtype: torch.dtype, layout: str
) -> None:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=groups == 1).to(dtype)
    x = torch.randn(batch, inputs, 14, 14).to(dtype).contiguous(memory_format=FORMATS[layout]).requires_grad_()
    error = 0.1  # of one call, of more samples than are measured; most calls are not the peak of a step
    assert counted(lambda: layer(x)) == pytest.approx(allocated(lambda: layer(x)), rel=error)
    y = layer(x)
    gradient = torch.ones_like(y, memory_format=torch.contiguous_format)  # another layout than its input's

    def back() -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, [x, *layer.parameters()], gradient, retain_graph=True)

    assert counted(back) == pytest.approx(allocated(back), rel=error)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.ConvTranspose2d(16, 8, 2, stride=2), (8, 16, 12, 12)), (nn.Conv1d(16, 32, 5), (40, 16, 64))],
    ids=lambda value: type(value).__name__,
)
def test_other_convolutions(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape).requires_grad_()
    assert counted(lambda: layer(x)) == pytest.approx(allocated(lambda: layer(x)), rel=0.05)


def test_it_is_measured_once_and_whatever_is_drawn_stays() -> None:
    layer, x = nn.Conv2d(4, 4, 3), torch.randn(2, 4, 9, 9)
    torch.manual_seed(3)
    with FakeTensorMode() as fake, LiveTensorMode(estimate_cpu_scratch):
        nn.functional.conv2d(fake.from_tensor(x), torch.empty(4, 4, 3, 3))
        misses = _estimate_convolution_scratch.cache_info().misses
        nn.functional.conv2d(fake.from_tensor(x), torch.empty(4, 4, 3, 3))
    assert _estimate_convolution_scratch.cache_info().misses == misses
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert layer(x).shape == (2, 4, 7, 7)


def test_what_takes_none() -> None:
    x = torch.randn(1000)
    assert counted(lambda: x + 1) == 4000


MASK, FLOATS, COLUMN = torch.ones(8, 64, 32, dtype=torch.bool), torch.ones(8, 64, 32), torch.ones(8, 64, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: FLOATS * MASK,
        lambda: COLUMN / MASK,
        lambda: FLOATS.to(torch.bfloat16) + COLUMN,
        lambda: FLOATS - FLOATS,
        lambda: MASK.sum(2),
        lambda: MASK.sum(),
        lambda: FLOATS.sum(2),
    ],
    ids=["mask", "one column", "bf16", "same type", "sum of booleans", "sum of all booleans", "sum"],
)
def test_operands_of_another_type_are_converted(call: Callable[[], Any]) -> None:
    assert counted(call) == pytest.approx(allocated(call), abs=512)
