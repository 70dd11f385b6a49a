"""What CPU kernels take while they compute, against the allocator, call by call."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mlscale.estimate.live import Live
from mlscale.estimate.scratch import cpu_scratch

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="the figures are oneDNN's on x86-64",
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
    with Live(cpu_scratch) as live:
        kept = call()
    del kept
    return int(live.peak)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride"), [(32, 32, 3, 1), (32, 64, 3, 2), (32, 64, 1, 2), (256, 256, 3, 1)]
)
def test_convolutions(inputs: int, outputs: int, kernel: int, stride: int, dtype: torch.dtype) -> None:
    if dtype == torch.float16 and torch.ops.mkldnn._is_mkldnn_fp16_supported():
        pytest.skip("no machine with float16 units was at hand: the figures are those of torch's own kernels")
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False).to(dtype)
    x = torch.randn(16, inputs, 28, 28).to(dtype).requires_grad_()
    error = 0.1 if dtype == torch.float32 else 0.3  # of one call; most calls are not the peak of a step
    assert counted(lambda: layer(x)) == pytest.approx(allocated(lambda: layer(x)), rel=error)
    y = layer(x)
    gradient = torch.ones_like(y)

    def back() -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, [x, layer.weight], gradient, retain_graph=True)

    assert counted(back) == pytest.approx(allocated(back), rel=error)


def test_bfloat16_without_avx512_is_unfolded() -> None:
    """oneDNN reads its own limit once, so this is asked in another process."""
    code = (
        "import torch\nfrom tests.unit.estimate.test_scratch import allocated, counted\n"
        "layer = torch.nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False).bfloat16()\n"
        "x = torch.randn(16, 32, 28, 28).bfloat16()\n"
        "print(counted(lambda: layer(x)), allocated(lambda: layer(x)))"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True)
    ours, torchs = answer.stdout.split()
    assert ours == torchs, answer.stderr


def test_what_takes_none() -> None:
    x = torch.randn(1000)
    assert counted(lambda: x + 1) == 4000
